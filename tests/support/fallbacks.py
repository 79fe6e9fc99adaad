"""Engines of ONNX Runtime around the network of `colours`, and gpu lanes that serve them without a plan."""

import shutil
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, BundleEngine, EngineSettings
from slipway.engines.graph import served_graph
from slipway.engines.typed_graph import PROVIDER
from slipway.onnx_graph import SERVED_INPUT, output_sizes
from slipway.repository import Classifier
from slipway.system.files import sha256_file
from tests.support.colours import copy_colours
from tests.support.gpu_lanes import with_gpu
from tests.support.plans import seal


def onnxruntime_engine(folder: Path, bundle: Bundle, *, verdict: str = "pass", precision: str = "fp16") -> BundleEngine:
    """Write and open an engine folder with the bundle's own graph, and a verdict that nothing was evaluated for."""
    folder.mkdir(parents=True)
    shutil.copyfile(bundle.path / "decision.json", folder / "decision.json")
    (folder / "model.onnx").write_bytes(served_graph(bundle.path / "model.onnx", bundle.preprocess))
    sizes = output_sizes(folder / "model.onnx")
    text = {
        "target": "onnxruntime",
        "precision": precision,
        "arithmetic": "typed",
        "classes": sizes["logits_nc"],
        "embedding_size": sizes["embedding_nd"],
        "input": SERVED_INPUT,
        "graph_sha256": sha256_file(folder / "model.onnx"),
        "calibration_sha256": sha256_file(bundle.path / "calibration.json"),
        "provider": PROVIDER,
    }
    EngineSettings.parse(text, source="test").write(folder / "engine.json")
    return seal(folder, bundle, verdict=verdict)


def fallback_classifier(folder: Path, **serving_gpu: Any) -> Classifier:
    """`colours` with an engine of ONNX Runtime, and a spec that lets it be served."""
    bundle = copy_colours(folder / "colours", spec=with_gpu(fallback="onnxruntime", **serving_gpu)).bundle
    return Classifier(bundle, onnxruntime_engine(folder / "engines/onnxruntime-fp16", bundle))
