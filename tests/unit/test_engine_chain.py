"""The chain from bundle to engine: every broken link is refused, and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.contract import Bundle, BundleEngine, Manifest, ManifestError
from slipway.system.files import files_below
from tests.support.colours import COLOURS, reseal
from tests.support.damage import flip_byte

FILES = list(files_below(COLOURS))


def open_engine(folder: Path) -> BundleEngine:
    return BundleEngine.open(folder / "engine", bundle=Bundle.open(folder / "bundle"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(COLOURS, tmp_path / "colours")
    return tmp_path / "colours"


def test_the_untouched_chain_opens(copy: Path) -> None:
    assert open_engine(copy).may_be_served


@pytest.mark.parametrize("file", FILES)
def test_one_changed_byte_or_a_missing_file_is_refused_by_its_name(copy: Path, file: str) -> None:
    flip_byte(copy / file)
    is_listed = not file.endswith("manifest.json")
    with pytest.raises(ManifestError, match=f"{copy / file}: {'changed since' if is_listed else ''}"):
        open_engine(copy)
    (copy / file).unlink()
    with pytest.raises(ManifestError, match=f"{copy / file}: missing" if is_listed else "no manifest.json here"):
        open_engine(copy)


@pytest.mark.parametrize("folder", ["bundle", "engine"])
def test_a_file_that_was_added_is_refused_by_name(copy: Path, folder: str) -> None:
    (copy / folder / "extra.txt").touch()
    with pytest.raises(ManifestError, match=r"extra.txt: not in the manifest"):
        open_engine(copy)


def test_a_verdict_that_was_written_over_is_refused(copy: Path) -> None:
    path = copy / "engine/manifest.json"
    path.write_text(path.read_text().replace('"reference"', '"pass"'))
    with pytest.raises(ManifestError, match=r"engine/manifest\.json: changed since this engine was made"):
        open_engine(copy)


@pytest.mark.parametrize("folder", ["bundle", "engine"])
def test_a_wrong_hash_is_refused_by_the_name_of_the_file_it_stands_for(copy: Path, folder: str) -> None:
    manifest = Manifest.read(copy / folder / "manifest.json")
    outputs = {**manifest.outputs, "decision.json": "0" * 64}
    manifest.model_copy(update={"outputs": outputs}).write(copy / folder / "manifest.json")
    with pytest.raises(ManifestError, match=f"{folder}/decision.json: changed since"):
        open_engine(copy)


def rewrite(file: str, **changes: str) -> Callable[[Path], None]:
    def change(copy: Path) -> None:
        content = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps({**content, **changes}))
        reseal(copy / Path(file).parts[0])

    return change


def other_graph(copy: Path) -> None:
    with (copy / "engine/model.onnx").open("ab") as graph:
        graph.write(b"\0")
    reseal(copy / "engine")


def other_bundle(copy: Path) -> None:
    reseal(copy / "engine", bundle="1" * 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rewrite("engine/engine.json", calibration_sha256="2" * 64), "calibrated with another list of images"),
        (rewrite("engine/engine.json", graph_sha256="3" * 64), "not the graph that engine.json names"),
        (rewrite("engine/engine.json", input="pixels_nchw"), "takes pixels_nchw, but .* pixels_nhwc_u8; compile it"),
        (other_graph, "not the graph that engine.json names"),
        (other_bundle, "compiled from bundle 111111111111"),
        (rewrite("bundle/preprocess.json", resize="crop"), "the files make bundle"),
    ],
)
def test_a_link_that_was_resealed_still_does_not_fit_its_neighbours(
    copy: Path, change: Callable[[Path], None], says: str
) -> None:
    change(copy)
    with pytest.raises(ManifestError, match=says):
        open_engine(copy)
