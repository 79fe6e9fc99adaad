"""Manifest and bundle id: nothing changed, missing or added goes unnoticed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import (
    Bundle,
    BundleEngine,
    Decision,
    Manifest,
    ManifestError,
    SlipwayError,
    Spec,
    SpecError,
    bundle_id,
    write_labels,
)
from slipway.contract.bundle import IDENTITY, CalibrationList
from slipway.system.files import sha256_bytes
from tests.support.colours import COLOURS
from tests.support.damage import flip_byte

SPEC: dict[str, Any] = {
    "name": "digits",
    "data": {"root": "data/digits"},
    "preprocess": {"input_height": 64, "input_width": 64},
    "backbone": {"name": "resnet10t"},
}
OTHERS = ("spec.json", "evaluation.json", "calibration/0.png", "manifest.json")
"""Files of a bundle that do not make it what it is."""


def make_bundle(folder: Path, *, decision: dict[str, Any] | None = None) -> Path:
    """A sealed bundle of the least that `Bundle.open` takes; its network is a placeholder."""
    spec = Spec.parse(SPEC, source="spec")
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"a placeholder for a network")
    spec.write(folder / "spec.json")
    spec.preprocess.write(folder / "preprocess.json")
    Decision.parse(decision or {"task": "multiclass", "top_k": 1}, source="decision").write(folder / "decision.json")
    write_labels(("cat", "dog"), folder / "labels.txt")
    (folder / "calibration").mkdir()
    (folder / "calibration/0.png").write_bytes(b"an image")
    entry = {"file": "0.png", "class_id": 0, "sha256": sha256_bytes(b"an image")}
    (folder / "calibration.json").write_text(json.dumps({"images": [entry]}))
    (folder / "evaluation.json").write_text("{}")
    seal(folder)
    return folder


def seal(folder: Path) -> Manifest:
    return Manifest.seal(
        folder, kind="bundle", name="digits", bundle=bundle_id(folder), seed=7, measured={"top1": 0.99}
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def test_a_sealed_folder_opens_with_what_was_recorded(bundle: Path) -> None:
    manifest = Manifest.open(bundle, kind="bundle")
    assert manifest == Manifest.read(bundle / "manifest.json")
    assert sorted(manifest.outputs) == sorted({*IDENTITY, *OTHERS} - {"manifest.json"})
    assert manifest.outputs["model.onnx"] == sha256_bytes(b"a placeholder for a network")
    assert {"slipway", "numpy"} <= manifest.versions.keys()
    assert (manifest.name, manifest.seed, manifest.measured) == ("digits", 7, {"top1": 0.99})
    assert manifest.created is not None


def test_a_moved_folder_opens(bundle: Path, tmp_path: Path) -> None:
    assert Manifest.open(bundle.rename(tmp_path / "elsewhere"), kind="bundle").kind == "bundle"


def test_the_manifest_does_not_list_itself_and_does_list_a_namesake_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/manifest.json").write_text("{}")
    Manifest.seal(tmp_path, kind="graph", name="digits")
    assert list(Manifest.seal(tmp_path, kind="graph", name="digits").outputs) == ["below/manifest.json"]


@given(
    names=st.dictionaries(st.text(max_size=20), st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=5),
    kind=st.sampled_from(["checkpoint", "bundle", "graph", "engine", "repository"]),
    seed=st.none() | st.integers(),
    measured=st.dictionaries(
        st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
    ),
)
def test_manifest_round_trips(names: dict[str, str], kind: str, seed: int | None, measured: dict[str, Any]) -> None:
    data = {"kind": kind, "name": "digits", "inputs": names, "outputs": names, "seed": seed, "measured": measured}
    manifest = Manifest.parse(data, source="first")
    again = Manifest.parse(json.loads(manifest.to_json()), source="again")
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_a_manifest_refuses_unknown_keys_and_what_is_no_sha256() -> None:
    with pytest.raises(SlipwayError, match="here: sha: unknown key; the valid keys here are bundle, commit, created, "):
        Manifest.parse({"kind": "bundle", "name": "a", "outputs": {}, "sha": 1}, source="here")
    for wrong in ("A" * 64, "a" * 63, "a" * 64 + "\n", ""):
        with pytest.raises(SlipwayError, match=r"outputs\.x: "):
            Manifest.parse({"kind": "bundle", "name": "a", "outputs": {"x": wrong}}, source="here")


def add_link_to_a_file(folder: Path) -> None:
    (folder / "link.txt").symlink_to(folder / "labels.txt")


def replace_by_link(folder: Path) -> None:
    (folder / "labels.txt").rename(folder.parent / "labels.txt")
    (folder / "labels.txt").symlink_to(folder.parent / "labels.txt")


def add_link_out_of_the_tree(folder: Path) -> None:
    (folder / "calibration/more").symlink_to("/", target_is_directory=True)


def add_dangling_link(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (lambda folder: flip_byte(folder / "labels.txt", 0), "labels.txt", "changed since this bundle was made"),
        (lambda folder: (folder / "labels.txt").write_bytes(b""), "labels.txt", "changed since"),
        (lambda folder: (folder / "calibration/0.png").unlink(), "calibration/0.png", "missing; the manifest of this"),
        (lambda folder: shutil.rmtree(folder / "calibration"), "calibration/0.png", "missing; the manifest of this"),
        (lambda folder: (folder / "extra.txt").touch(), "extra.txt", "not in the manifest of this bundle"),
        (lambda folder: (folder / "calibration/.hidden").touch(), "calibration/.hidden", "not in the manifest"),
        (lambda folder: (folder / "model.onnx").rename(folder / "net.onnx"), "model.onnx", "missing"),
        (add_link_to_a_file, "link.txt", "a symbolic link"),
        (replace_by_link, "labels.txt", "a symbolic link"),
        (add_link_out_of_the_tree, "calibration/more", "a symbolic link"),
        (add_dangling_link, "gone", "a symbolic link"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_named(
    bundle: Path, damage: Callable[[Path], object], file: str, says: str
) -> None:
    damage(bundle)
    for opened in (lambda: Manifest.open(bundle, kind="bundle"), lambda: Bundle.open(bundle)):
        with pytest.raises(ManifestError) as caught:
            opened()
        assert str(caught.value).startswith(f"{bundle / file}: ")
        assert says in str(caught.value)


def test_one_changed_byte_anywhere_is_noticed(bundle: Path) -> None:
    for path in [path for path in bundle.rglob("*") if path.is_file() and path.name != "manifest.json"]:
        whole = path.read_bytes()
        flip_byte(path, -1)
        with pytest.raises(ManifestError, match=re.escape(str(path))):
            Manifest.open(bundle, kind="bundle")
        path.write_bytes(whole)
    Manifest.open(bundle, kind="bundle")


def test_another_kind_is_refused_with_both_kinds(bundle: Path) -> None:
    with pytest.raises(ManifestError, match="of kind bundle, but kind engine is needed"):
        Manifest.open(bundle, kind="engine")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ManifestError, match=re.escape(f"{folder}: no manifest.json here")):
            Manifest.open(folder, kind="graph")


def test_a_broken_manifest_is_refused_by_name(bundle: Path) -> None:
    whole = (bundle / "manifest.json").read_text()
    for broken in ("", "{", whole[:-20], "[]", whole.replace('"kind"', '"sort"')):
        (bundle / "manifest.json").write_text(broken)
        with pytest.raises(ManifestError, match=re.escape(str(bundle / "manifest.json"))):
            Manifest.open(bundle, kind="bundle")


def test_a_manifest_cannot_name_files_outside_its_folder(bundle: Path) -> None:
    (bundle.parent / "outside").write_bytes(b"x")
    manifest = Manifest.read(bundle / "manifest.json")
    for path in ("../outside", str(bundle.parent / "outside")):
        outputs = {**manifest.outputs, path: sha256_bytes(b"x")}
        manifest.model_copy(update={"outputs": outputs}).write(bundle / "manifest.json")
        with pytest.raises(ManifestError, match="outside: missing"):
            Manifest.open(bundle, kind="bundle")


def test_a_folder_with_a_link_cannot_be_sealed(bundle: Path) -> None:
    add_link_to_a_file(bundle)
    with pytest.raises(ManifestError, match=r"link\.txt: a symbolic link"):
        seal(bundle)


def test_a_bundle_opens_with_its_contents(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.id == bundle_id(bundle) == opened.manifest.bundle
    assert opened.labels == ("cat", "dog")
    assert opened.spec.name == "digits"
    assert opened.preprocess == opened.spec.preprocess
    assert [image.file for image, _ in CalibrationList.load(opened.path)] == ["0.png"]


def test_two_copies_have_one_id_whatever_their_times_and_measurements(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "first"), make_bundle(tmp_path / "second")
    Manifest.seal(second, kind="bundle", name="digits", bundle=bundle_id(second), seed=8, measured={"top1": 0.5})
    os.utime(second / "model.onnx", (0, 0))
    assert bundle_id(first) == bundle_id(second)
    assert re.fullmatch("[0-9a-f]{64}", bundle_id(first))
    shutil.copytree(first, tmp_path / "third")
    assert Bundle.open(tmp_path / "third").id == Bundle.open(first).id


def test_equal_files_keep_their_id_from_release_to_release(tmp_path: Path) -> None:
    for name in ("model.onnx", "preprocess.json", "labels.txt", "decision.json", "calibration.json"):
        (tmp_path / name).write_text(name)
    assert bundle_id(tmp_path) == "aa1c83e8239658953d218ca60946baaf03ad54dc474af012e01175fb89749182"


@pytest.mark.parametrize("name", IDENTITY)
def test_every_identity_file_changes_the_id(bundle: Path, name: str) -> None:
    before = bundle_id(bundle)
    (bundle / name).write_bytes((bundle / name).read_bytes() + b" ")
    assert bundle_id(bundle) != before


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_file_changes_the_id(bundle: Path, name: str) -> None:
    before = bundle_id(bundle)
    (bundle / name).write_bytes((bundle / name).read_bytes() + b" ")
    (bundle / "plot.png").write_bytes(b"new")
    assert bundle_id(bundle) == before


@pytest.mark.parametrize("name", IDENTITY)
def test_a_bundle_without_an_identity_file_is_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    Manifest.seal(bundle, kind="bundle", name="digits", bundle="0" * 64)
    with pytest.raises(ManifestError, match=re.escape(str(bundle / name))):
        Bundle.open(bundle)


def test_a_bundle_resealed_under_its_old_id_is_refused(bundle: Path) -> None:
    old = bundle_id(bundle)
    (bundle / "model.onnx").write_bytes(b"another network")
    Manifest.seal(bundle, kind="bundle", name="digits", bundle=old)
    with pytest.raises(ManifestError, match=f"the files make bundle {bundle_id(bundle)[:12]}; the manifest says {old}"):
        Bundle.open(bundle)


def test_thresholds_have_to_match_the_labels(tmp_path: Path) -> None:
    decision = {"task": "multilabel", "top_k": 1, "thresholds": [0.5, 0.5, 0.5]}
    with pytest.raises(ManifestError, match="3 thresholds for 2 labels; build it again"):
        Bundle.open(make_bundle(tmp_path / "bundle", decision=decision))


@pytest.mark.parametrize("file", ["../../outside.png", "/etc/passwd"])
def test_a_calibration_list_cannot_name_files_outside_the_bundle(bundle: Path, file: str) -> None:
    listing = {"images": [{"file": file, "class_id": 0, "sha256": "0" * 64}]}
    (bundle / "calibration.json").write_text(json.dumps(listing))
    seal(bundle)
    with pytest.raises(SpecError, match=re.escape(file)):
        CalibrationList.load(Bundle.open(bundle).path)


def test_a_calibration_image_that_is_not_the_listed_one_is_named(bundle: Path) -> None:
    (bundle / "calibration/0.png").write_bytes(b"another")
    seal(bundle)
    with pytest.raises(ManifestError, match=r"0\.png: not the image that calibration\.json lists"):
        CalibrationList.load(Bundle.open(bundle).path)


def test_an_engine_that_names_no_bundle_is_refused(tmp_path: Path) -> None:
    Manifest.seal(tmp_path, kind="engine", name="digits")
    with pytest.raises(ManifestError, match="compiled from bundle"):
        BundleEngine.open(tmp_path, bundle=Bundle.open(COLOURS / "bundle"))
