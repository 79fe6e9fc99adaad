"""The page of a bundle's evaluation: its numbers, its drawings, and that it loads and runs nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import Bundle, Decision, SpecError
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.evaluation import ScoreChoice, read_bundle_evaluation
from slipway.evaluation.predict import Predictions
from slipway.evaluation.unknown import compare_scores, evidence
from slipway.evaluation.worth import worth
from slipway.report.evaluation import page as drawn
from slipway.report.evaluation import render
from slipway.report.evaluation.drawings import SIDE, Axis, confused_pairs, matrix
from tests.support.colours import reseal
from tests.support.report_builds import LABELS, Page, make_bundle
from tests.support.scripts import run_script

DECISION = {"task": "multiclass", "top_k": 2, "temperature": 0.5, "unknown": {"threshold": 0.9}}


def evaluated(folder: Path, *, labels: Sequence[str] = LABELS, sure: float = 3.0, **changes: Any) -> Bundle:
    """`colours` with an evaluation of made-up logits on its test images."""
    bundle = make_bundle(folder, labels=labels)
    images = Dataset.read(bundle.path / "dataset.json").images
    truth_n = np.array([image.class_id for image in images])
    rng = np.random.default_rng(0)
    logits_nc = rng.normal(size=(len(images), len(labels))).astype(np.float32)
    logits_nc[np.arange(len(images)), truth_n] += sure
    test = Predictions(images, logits_nc, logits_nc)
    decision = Decision.parse({**DECISION, **changes}, source="test")
    known = evidence(logits_nc, logits_nc, temperature=0.5, means=None)
    unknown = ScoreChoice(policy={"score": "auto", "coverage": 0.98}, scores=compare_scores(known, truth_n, {}))
    worth(decision, test, test, tuple(labels), unknown=unknown).write(bundle.path / "evaluation.json")
    reseal(bundle.path)
    return Bundle.open(bundle.path)


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
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/jpeg;base64,"))
    assert "url(" not in text
    assert str(page.all("meta")[1]["content"]).startswith("default-src 'none';")
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
    assert "No class was taken for another one." in page.text
    assert "the spec asks for no unknown" in page.text


def test_two_hundred_classes_are_a_drawing_of_the_worst_and_a_list_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = evaluated(tmp_path, labels=[f"class {number}" for number in range(200)], sure=1.0)
    page = page_of(bundle)
    assert "The 150 classes with the most mistakes; 50 others are left out." in page.text
    assert "197 classes have no test image: nothing is known of them" in page.text
    monkeypatch.setattr(drawn, "CLASSES_SHOWN", 2)
    assert "The 2 lowest of 3 classes." in page_of(bundle).text
    assert len(render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task))) < 600_000


def test_an_imported_bundle_has_no_grad_cam_and_takes_no_checkpoint(bundle: Bundle, tmp_path: Path) -> None:
    script = ("training/evaluate.py", bundle.path, "--out", tmp_path / "page.html")
    assert "No Grad-CAM: this bundle was imported" in run_script(*script, cwd=tmp_path).stdout
    assert "No Grad-CAM: this bundle was imported" in Page((tmp_path / "page.html").read_text()).text
    done = run_script(*script, "--checkpoint", "x", cwd=tmp_path, check=False)
    assert "was imported, and not exported from a checkpoint; leave it out" in done.stderr


def test_a_bundle_of_an_older_release_is_to_be_exported_again(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(SpecError, match="export it again"):
        read_bundle_evaluation(bundle.path, task=bundle.decision.task)
    (bundle.path / "evaluation.json").write_text('{"images": 3, "top1": 1.0}')
    with pytest.raises(SpecError, match=r"evaluation.json: (?s:.*)reliability(?s:.*)export it again"):
        read_bundle_evaluation(bundle.path, task=bundle.decision.task)


@given(st.lists(st.floats(0, 1), max_size=9))
def test_an_axis_holds_its_values_and_ends_at_one(values: list[float]) -> None:
    axis = Axis.down_to(values)
    assert axis.at(1.0) == SIDE
    assert all(axis.low <= value + 1e-9 for value in values)
    assert len({text for _, text in axis.ticks}) == 5


def test_a_lone_mistake_is_drawn_and_listed() -> None:
    confusion = [(0, 0, 999), (0, 1, 1), (2, 2, 5)]
    drawn = matrix(confusion, classes=3)
    assert [path for _, path in drawn.paths] == ["M1 0h1v1h-1z", "M0 0h1v1h-1zM2 2h1v1h-1z"]
    (pair,) = confused_pairs(confusion, "abc", most=9)
    assert (pair.truth, pair.label, pair.images, pair.share) == ("a", "b", 1, 0.001)
