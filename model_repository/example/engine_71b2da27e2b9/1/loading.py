"""The engine of a model's folder, as its configuration says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engine_openvino import Engine


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
    """Batches of zeros, of one image and of the largest size."""
    warmup_batches = int(model["parameters"].get("warmup_batches", {}).get("string_value", 0))
    image_hwc = [int(side) for side in model["input"][0]["dims"]]  # protobuf's own JSON has strings here
    for batch_size in (1, model["max_batch_size"]) * warmup_batches:
        engine.run(np.zeros((batch_size, *image_hwc), np.uint8))
