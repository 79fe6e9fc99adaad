"""What the report refuses, what it shows in place of an image that is gone, and its script."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.contract import Bundle, ManifestError, SpecError
from slipway.report import render
from tests.support.report_builds import Page, add_engine, evidence, make_bundle, make_served, opened
from tests.support.scripts import refused, run_here


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_served(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image.unlink(), "cannot be read"),
        (lambda image: image.write_bytes(b"GIF89a"), "changed since the data set was split"),
    ],
)
def test_a_flip_without_its_image_says_why(bundle: Bundle, damage: Callable[[Path], None], reason: str) -> None:
    damage(bundle.path.parent / "data/003.png")
    page = Page(render(opened(bundle)))
    assert not page.all("img")
    assert f"{bundle.path.parent}/data/003.png: {reason}" in page.text


def test_a_changed_byte_is_refused_by_name(bundle: Bundle) -> None:
    path = bundle.path.parent / "engines/openvino-int8/evaluation.json"
    path.write_text(path.read_text().replace("0.9876", "0.9976"))
    with pytest.raises(ManifestError, match=r"openvino-int8/evaluation.json: changed since this engine was made"):
        opened(bundle)


def test_a_verdict_that_was_edited_into_the_manifest_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    engine = add_engine(bundle, "openvino-int8", evidence(bundle, wrong=range(100)))
    path = engine.path / "manifest.json"
    path.write_text(path.read_text().replace('"verdict": "fail"', '"verdict": "pass"'))
    with pytest.raises(ManifestError, match=r"openvino-int8/manifest\.json: changed since this engine was made"):
        opened(bundle)


def test_an_engine_under_another_name_is_refused(bundle: Bundle) -> None:
    engines = bundle.path.parent / "engines"
    shutil.copytree(engines / "openvino-fp32", engines / "openvino-bf16")
    with pytest.raises(ManifestError, match="openvino-bf16: holds the engine openvino-fp32"):
        opened(bundle)


def test_a_half_copied_engine_is_refused_and_a_cache_is_passed_over(bundle: Bundle) -> None:
    engines = bundle.path.parent / "engines"
    (engines / "cache").mkdir()
    assert len(opened(bundle).engines) == 2
    (engines / "openvino-int8/manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"openvino-int8: no manifest.json here"):
        opened(bundle)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(SpecError, match=r"engines: no such folder; give the folder that slipway compile wrote"):
        opened(bundle)


def test_the_script_writes_the_page_and_says_what_is_served(bundle: Bundle) -> None:
    folder = bundle.path.parent
    done = run_here("report", "bundle", "--engines", "engines", "--json", cwd=folder)
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["served"] == {"cpu": ["openvino-int8"], "gpu": []}
    assert "No TensorRT plan" in line["todo"]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_leaves_nothing(bundle: Bundle) -> None:
    folder = bundle.path.parent
    (folder / "taken").write_text("")
    assert "taken/r.html: cannot be written" in refused(
        "report", "bundle", "--engines", "engines", "--out", "taken/r.html", cwd=folder
    )
    assert not list(folder.rglob("*.html*"))
