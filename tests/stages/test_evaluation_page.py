"""The page of a bundle's evaluation: its numbers, its drawings, and that it loads and runs nothing."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.contract import Bundle, SpecError
from slipway.contract.evidence.evaluation import read_bundle_evaluation
from slipway.report.evaluation import page as drawn
from slipway.report.evaluation import render
from slipway.report.evaluation.drawings import confused_pairs, least_shown, matrix
from tests.support.evaluated import evaluated
from tests.support.report_builds import LABELS, Page, make_bundle
from tests.support.scripts import run_here


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return evaluated(tmp_path_factory.mktemp("evaluated"))


def page_of(bundle: Bundle) -> Page:
    return Page(render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task)))


def test_the_page_shows_the_numbers_of_the_file(bundle: Bundle) -> None:
    page, found = page_of(bundle), json.loads((bundle.path / "evaluation.json").read_text())
    assert f"{found['top1']:.2%}" in page.text
    assert f"{found['reliability']['after']['ece']:.4f}" in page.text
    low, high = found["reliability"]["before"]["ece_interval"]
    assert f"({low:.4f} to {high:.4f})" in page.text
    for label in LABELS:
        row = found["per_class"][label]
        assert f"{row['f1']:.3f} ({row['f1_interval'][0]:.2f} to {row['f1_interval'][1]:.2f})" in page.text
    assert f"{found['unknown']['test']['unknown_rate']:.2%}" in page.text
    assert "asked for: coverage 0.98, score auto" in page.text
    assert "bundle/evaluation.json" in page.text


def test_the_surest_mistakes_stand_there_with_their_images(bundle: Bundle) -> None:
    found = json.loads((bundle.path / "evaluation.json").read_text())
    shown = [image["alt"] for image in page_of(bundle).all("img")]
    assert shown == [mistake["image"] for mistake in found["mistakes"]][:24]
    assert shown


def test_the_page_loads_nothing_and_runs_nothing(bundle: Bundle) -> None:
    text = render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task))
    Page(text).assert_loads_and_runs_nothing()
    assert render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task)) == text


def test_labels_are_text_whatever_they_say(tmp_path: Path) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x>', "{{ 7 * 7 }}")
    page = page_of(evaluated(tmp_path, labels=evil))
    assert not page.all("script")
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    for label in evil:
        assert label in page.text


def test_without_mistakes_and_without_unknown_the_page_says_so(tmp_path: Path) -> None:
    page = page_of(evaluated(tmp_path, sure=90.0, unknown=None))
    assert "None: every test image got the right answer." in page.text
    assert "No class was mistaken for another one." in page.text
    assert "the spec does not ask for unknown" in page.text


def test_two_hundred_classes_are_a_drawing_of_the_worst_and_a_list_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = evaluated(tmp_path, labels=[f"class {number}" for number in range(200)], sure=1.0)
    page = page_of(bundle)
    assert "The 150 classes with the most mistakes are shown; 50 others are left out." in page.text
    assert "197 classes have no test image: their accuracy is unknown" in page.text
    monkeypatch.setattr(drawn, "CLASSES_SHOWN", 2)
    assert "The 2 lowest of 3 classes are shown." in page_of(bundle).text
    assert len(render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task))) < 600_000


def test_an_imported_bundle_has_no_grad_cam_and_takes_no_checkpoint(bundle: Bundle, tmp_path: Path) -> None:
    script = ("evaluate", bundle.path, "--out", tmp_path / "page.html")
    assert "No Grad-CAM: this bundle was imported" in run_here(*script, cwd=tmp_path).stdout
    assert "No Grad-CAM: this bundle was imported" in Page((tmp_path / "page.html").read_text()).text
    done = run_here(*script, "--checkpoint", "x", cwd=tmp_path, check=False)
    assert "was not exported from a checkpoint; leave it out" in done.stderr


def test_a_bundle_of_an_older_release_is_to_be_exported_again(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(SpecError, match="export it again"):
        read_bundle_evaluation(bundle.path, task=bundle.decision.task)
    (bundle.path / "evaluation.json").write_text('{"images": 3, "top1": 1.0}')
    with pytest.raises(SpecError, match=r"evaluation.json: (?s:.*)reliability(?s:.*)export it again"):
        read_bundle_evaluation(bundle.path, task=bundle.decision.task)


@given(st.lists(st.floats(0, 1), max_size=9))
def test_an_axis_to_one_starts_below_its_values(values: list[float]) -> None:
    assert least_shown(values) < 1.0
    assert all(least_shown(values) <= value + 1e-9 for value in values)


def test_a_lone_mistake_is_drawn_and_listed() -> None:
    confusion = [(0, 0, 999), (0, 1, 1), (2, 2, 5)]
    picture, left_out = matrix(confusion, classes=3)
    encoded = re.search(r'href="data:image/png;base64,([^"]+)"', picture)
    assert encoded is not None
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))[..., 3]
    assert (alpha > 0).tolist() == [[True, True, False], [False, False, False], [False, False, True]]
    assert left_out == 0
    (pair,) = confused_pairs(confusion, "abc", most=9)
    assert (pair.truth, pair.label, pair.images, pair.share) == ("a", "b", 1, 0.001)
