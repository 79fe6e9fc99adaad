"""Sealed copies of the tiny fixed bundle and engine of tests/assets/colours, and what is assembled from them."""

import importlib
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import Bundle, BundleEngine, EngineSettings, Manifest, Spec, bundle_id
from slipway.contract.manifest import hashes
from slipway.repository import Classifier
from slipway.system.files import sha256_file

COLOURS = Path(__file__).parents[1] / "assets" / "colours"
Change = Callable[[Path], None]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy_colours(
    folder: Path,
    *,
    spec: dict[str, Any] | None = None,
    bundle: Change = lambda _: None,
    engine: Change = lambda _: None,
    measured: dict[str, Any] | None = None,
) -> Classifier:
    """A sealed copy of `colours` with keys of its spec, its files, or its gate's evidence changed."""
    shutil.copytree(COLOURS, folder)
    text = json.loads((folder / "bundle/spec.json").read_text())
    for name, value in (spec or {}).items():
        text[name] = text[name] | value if isinstance(value, dict) else value
    checked = Spec.parse(text, source="test")
    checked.write(folder / "bundle/spec.json")
    bundle(folder / "bundle")
    engine(folder / "engine")
    identity = bundle_id(folder / "bundle")
    Manifest.seal(folder / "bundle", kind="bundle", name=checked.name, bundle=identity)
    measured = {"gate": {"verdict": "reference"}} if measured is None else measured
    settings = json.loads((folder / "engine/engine.json").read_text())
    settings |= {
        "calibration_sha256": sha256_file(folder / "bundle/calibration.json"),
        "graph_sha256": sha256_file(folder / "engine/model.onnx"),
    }
    EngineSettings.parse(settings, source="test").write(folder / "engine/engine.json")
    Manifest.seal(folder / "engine", kind="engine", name=checked.name, bundle=identity, measured=measured)
    return open_colours(folder)


def open_colours(folder: Path) -> Classifier:
    bundle = Bundle.open(folder / "bundle")
    return Classifier(bundle, BundleEngine.open(folder / "engine", bundle=bundle))


def import_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The adapter `model.py` of a step's folder, imported as Triton's Python backend imports it."""
    package = types.ModuleType(folder.name)
    package.__path__ = [str(folder / "1")]
    monkeypatch.setitem(sys.modules, folder.name, package)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", types.ModuleType("stand-in"))
    return importlib.import_module(f"{folder.name}.model")


def reseal(folder: Path, **changes: Any) -> None:
    """Rewrite the manifest of `folder` so that it fits the files that lie there now."""
    manifest = Manifest.read(folder / "manifest.json")
    manifest.model_copy(update={"outputs": hashes(folder), **changes}).write(folder / "manifest.json")


def configs(repository: Path) -> dict[str, pb.ModelConfig]:
    """Every model's configuration, parsed strictly: an unknown field is an error."""
    return {
        path.parent.name: text_format.Parse(path.read_text(), pb.ModelConfig())
        for path in sorted(repository.glob("*/config.pbtxt"))
    }


def step_names(repository: Path) -> dict[str, str]:
    """`{"preprocess": "preprocess_…", …}` of a repository with one classifier."""
    names = {
        name.split("_")[0]: name for name in configs(repository) if name.startswith(("preprocess_", "engine_", "post_"))
    }
    assert len(names) == 3
    return names


def replaced(path: str, old: bytes, new: bytes) -> Change:
    def change(folder: Path) -> None:
        data = (folder / path).read_bytes()
        assert old in data
        (folder / path).write_bytes(data.replace(old, new))

    return change
