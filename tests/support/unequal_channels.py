"""Sealed copies of a bundle whose network is another one, or is the same function with one channel far too large."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from slipway.contract import Bundle, Manifest, Spec, bundle_id
from slipway.onnx_graph import save


def copy_bundle(
    source: Path, folder: Path, *, model: onnx.ModelProto | None = None, spec: dict[str, Any] | None = None
) -> Bundle:
    """A sealed copy of the bundle `source` with another graph, or with keys of its spec changed."""
    shutil.copytree(source, folder)
    text = json.loads((folder / "spec.json").read_text())
    for name, value in (spec or {}).items():
        text[name] = text[name] | value if isinstance(value, dict) and name in text else value
    changed = Spec.parse(text, source="test")
    changed.write(folder / "spec.json")
    if model is not None:
        save(model, folder / "model.onnx")
    (folder / "manifest.json").unlink()
    Manifest.seal(folder, kind="bundle", name=changed.name, bundle=bundle_id(folder))
    return Bundle.open(folder)


def enlarge_channel(model: onnx.ModelProto, convolution: str, *, factor: float, channel: int = 0) -> str:
    """Multiply one output channel of `convolution` by `factor`, and divide it again in the layer that reads it.

    A ReLU between them commutes with a positive factor, so the function stays the same in FP32. One INT8 range for the
    whole tensor then leaves the other channels few steps. Source: Nagel et al., "Data-Free Quantization Through Weight
    Equalization and Bias Correction", 2019, whose equalisation undoes exactly this.

    Returns the name of the layer that reads the channel: the one that suffers.
    """
    nodes = {node.name: node for node in model.graph.node}
    first = nodes[convolution]
    (relu,) = _readers(model, first.output[0])
    assert relu.op_type == "Relu"
    (second,) = _readers(model, relu.output[0])
    assert second.op_type == "Conv"
    for name in first.input[1:]:
        _scale(model, name, (channel,), factor)
    _scale(model, second.input[1], (slice(None), channel), 1 / factor)
    return str(second.name)


def _readers(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if tensor in node.input]


def _scale(model: onnx.ModelProto, name: str, where: tuple[Any, ...], factor: float) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[where] *= np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
