"""The engine of a model's folder, as its configuration says."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# OpenVINO's converter of other formats, which `import openvino` goes without: 4 MiB and 0.1 s of each process.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
from .engine_openvino import Engine  # noqa: E402
from .warmup import warmup_sizes  # noqa: E402


def load_engine(model: Mapping[str, Any], folder: Path) -> Engine:
    """Compile `model.onnx`, or take what an earlier start compiled (`SLIPWAY_CACHE`)."""
    parameters = model["parameters"]
    cache = os.environ.get("SLIPWAY_CACHE")
    return Engine(
        folder / "model.onnx",
        arithmetic=parameters["arithmetic"]["string_value"],
        threads=int(parameters["threads"]["string_value"]),
        cache=Path(cache) if cache else None,
    )


def warm_up(engine: Engine, model: Mapping[str, Any]) -> None:
    """Run batches of zeros."""
    image_hwc = [int(side) for side in model["input"][0]["dims"]]  # protobuf's own JSON has strings here
    for batch_size in warmup_sizes(model):
        engine.run(np.zeros((batch_size, *image_hwc), np.uint8))
