"""Makes versions of a run's classifier, as another training would have made them."""

import json
import shutil
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, BundleEngine, Manifest, bundle_id
from slipway.repository import Classifier, pick_engines


def variant(
    run: Path,
    folder: Path,
    *,
    temperature: float,
    name: str | None = None,
    serving: dict[str, Any] | None = None,
    engine_mark: str = "",
) -> Classifier:
    """Make a sealed copy of the run's bundle and chosen engine with another decision, and a graph whose hash is
    another."""
    chosen = pick_engines(Bundle.open(run / "bundle"), run / "engines", lane="cpu")
    shutil.copytree(run / "bundle", folder / "bundle", ignore=shutil.ignore_patterns("manifest.json"))
    shutil.copytree(chosen.engine.path, folder / "engine", ignore=shutil.ignore_patterns("manifest.json"))
    for part in ("bundle", "engine"):
        path = folder / part / "decision.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": temperature}), encoding="utf-8")
    spec_path = folder / "bundle" / "spec.json"
    spec = json.loads(spec_path.read_text())
    spec |= {"name": name or spec["name"], "serving": spec["serving"] | (serving or {})}
    spec_path.write_text(json.dumps(spec), encoding="utf-8")
    if engine_mark:
        mark_graph(folder / "engine", engine_mark)
    identity = bundle_id(folder / "bundle")
    Manifest.seal(folder / "bundle", kind="bundle", name=spec["name"], bundle=identity)
    measured = chosen.engine.manifest.measured
    Manifest.seal(folder / "engine", kind="engine", name=spec["name"], bundle=identity, measured=measured)
    bundle = Bundle.open(folder / "bundle")
    return Classifier(bundle, BundleEngine.open(folder / "engine", bundle=bundle))


def mark_graph(engine: Path, mark: str) -> None:
    """Change the file of the network and not its function, as another training would."""
    import onnx

    from slipway.system.files import sha256_file

    model = onnx.load(engine / "model.onnx")
    model.doc_string = mark
    onnx.save(model, engine / "model.onnx")
    settings = json.loads((engine / "engine.json").read_text())
    settings["graph_sha256"] = sha256_file(engine / "model.onnx")
    (engine / "engine.json").write_text(json.dumps(settings), encoding="utf-8")
