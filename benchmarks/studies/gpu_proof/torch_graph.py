"""Carries out a typed ONNX graph in torch: the operators of our graphs, in the types that the graph says.

`graphs.py` writes the graph as JSON with its numbers in an `.npz`, so that neither onnx nor a runtime is needed here.
This file is also copied beside a model of Triton's Python backend. It imports only numpy and torch, and runs under
Python 3.10 to 3.13.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch.nn import functional

Tensor = torch.Tensor
Arithmetic = Literal["typed", "f32"]
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Any], Attributes], Tensor]
TYPES = {1: torch.float32, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}
"""Types of torch by the numbers that ONNX gives them."""


class Node(TypedDict):
    """An operator of the graph, as `graphs.py` writes it."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class Graph(TypedDict):
    """The JSON of a graph."""

    input: str
    outputs: list[str]
    constants: dict[str, str]
    """Name of each constant to its key in the `.npz`."""
    nodes: list[Node]


class UnsupportedError(Exception):
    """The graph has an operator, or an attribute of one, that is not carried out here."""


class TorchGraph:
    """A graph on a device, its constant parts computed once.

    Args:
        path: the JSON of the graph.
        weights: the `.npz` that it takes its numbers from.
        arithmetic: `typed` computes in the types of the graph; `f32` computes FP16 parts in FP32, as the cpu lane's
            engine does with `arithmetic: f32`.

    Raises:
        UnsupportedError: an operator that is not carried out here.
    """

    def __init__(self, path: Path, weights: Path, *, device: str, arithmetic: Arithmetic = "typed") -> None:
        described: Graph = json.loads(path.read_text(encoding="utf-8"))
        self._types = {**TYPES, 10: torch.float32} if arithmetic == "f32" else TYPES
        self._outputs = described["outputs"]
        self._input = described["input"]
        self._constants: dict[str, Any] = {"": None}
        with np.load(weights) as arrays:
            for name, key in described["constants"].items():
                tensor = torch.from_numpy(arrays[key])
                tensor = tensor if tensor.dtype == torch.int64 else tensor.to(device)  # shapes and axes are read here
                half = arithmetic == "f32" and tensor.dtype == torch.float16
                self._constants[name] = tensor.float() if half else tensor
        self._nodes = []
        for node in described["nodes"]:
            if node["op"] not in OPERATORS and node["op"] != "Cast":
                known = ", ".join(sorted({*OPERATORS, "Cast"}))
                raise UnsupportedError(
                    f"{path.name}: {node['op']} ({node['name']}) is not carried out here, only {known}"
                )
            if all(name in self._constants for name in node["inputs"]):
                self._constants[node["outputs"][0]] = self._compute(node, self._constants)
            else:
                self._nodes.append(node)
        self._last_use = {name: index for index, node in enumerate(self._nodes) for name in node["inputs"]}

    @property
    def half_layers(self) -> int:
        """Count the convolutions and matrix products whose weights are FP16."""
        layers = [node for node in self._nodes if node["op"] in {"Conv", "Gemm", "MatMul"}]
        weights = [self._constants.get(node["inputs"][1]) for node in layers]
        return sum(weight is not None and weight.dtype == torch.float16 for weight in weights)

    @torch.inference_mode()
    def run(self, pixels_nchw: Tensor) -> dict[str, Tensor]:
        """Compute the graph's outputs by name in FP32, from FP32 `[n, 3, H, W]` on the device."""
        values: dict[str, Any] = {self._input: pixels_nchw}
        for index, node in enumerate(self._nodes):
            values[node["outputs"][0]] = self._compute(node, {**self._constants_of(node), **values})
            for name in node["inputs"]:
                if self._last_use[name] == index and name not in self._outputs:
                    values.pop(name, None)
        return {name: values[name].float() for name in self._outputs}

    def _constants_of(self, node: Node) -> dict[str, Any]:
        return {name: self._constants[name] for name in node["inputs"] if name in self._constants}

    def _compute(self, node: Node, values: Mapping[str, Any]) -> Tensor:
        inputs = [values[name] for name in node["inputs"]]
        if node["op"] == "Cast":
            result: Tensor = inputs[0].to(self._types[node["attributes"]["to"]])
            return result
        return OPERATORS[node["op"]](inputs, node["attributes"])


def _pads(attributes: Attributes, x: Tensor, *, value: float) -> Tensor:
    """Pad for a convolution or a pool beforehand, since ONNX may pad the two ends differently."""
    if attributes.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise UnsupportedError(f"auto_pad {attributes['auto_pad']} is not carried out here, only NOTSET and VALID")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return functional.pad(x, (left, right, top, bottom), value=value) if top + left + bottom + right else x


def _conv(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    options = {name: attributes.get(onnx, 1) for name, onnx in (("stride", "strides"), ("dilation", "dilations"))}
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right) and attributes.get("auto_pad", "NOTSET") == "NOTSET":
        options["padding"] = (top, left)
    else:
        x = _pads(attributes, x, value=0)
    return functional.conv2d(x, weight, bias, groups=attributes.get("group", 1), **options)


def _max_pool(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x = _pads(attributes, inputs[0], value=float("-inf"))
    return functional.max_pool2d(
        x,
        attributes["kernel_shape"],
        attributes.get("strides", 1),
        dilation=attributes.get("dilations", 1),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise UnsupportedError(f"AveragePool with pads {attributes['pads']}, which differ between the ends")
    return functional.avg_pool2d(
        inputs[0],
        attributes["kernel_shape"],
        attributes.get("strides", 1),
        (top, left),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        count_include_pad=bool(attributes.get("count_include_pad", 0)),
    )


def _reduce_mean(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    axes = inputs[1].tolist() if len(inputs) > 1 else attributes["axes"]
    mean: Tensor = inputs[0].mean(dim=axes, keepdim=bool(attributes.get("keepdims", 1)))
    return mean


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, shape = inputs[0], inputs[1].tolist()
    if not attributes.get("allowzero", 0):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    reshaped: Tensor = x.reshape(shape)
    return reshaped


def _gemm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    a, b, c = (*inputs, None)[:3]
    product: Tensor = (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    if attributes.get("alpha", 1.0) != 1:
        product = attributes["alpha"] * product
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Broadcast one value for all of `x`, or one for each index of `axis`."""
    return values if values.ndim == 0 else values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _quantize(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, scale, zero = inputs
    low, high = torch.iinfo(zero.dtype).min, torch.iinfo(zero.dtype).max
    axis = attributes.get("axis", 1)
    steps = torch.round(x.float() / _along(scale, x, axis).float()) + _along(zero, x, axis).float()
    result: Tensor = steps.clamp(low, high).to(zero.dtype)
    return result


def _dequantize(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, scale, zero = inputs
    axis = attributes.get("axis", 1)
    steps = x.float() - _along(zero, x, axis).float()
    result: Tensor = (steps * _along(scale, x, axis).float()).to(scale.dtype)
    return result


def _clip(inputs: Sequence[Any], _: Attributes) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    return torch.clamp(x, low, high)


def _hard_sigmoid(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    line: Tensor = inputs[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    return line.clamp(0, 1)


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda x, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda x, _: x[0] / x[1],
    "Flatten": lambda x, attributes: x[0].flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, _: x[0].mean(dim=(2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, _: functional.hardswish(x[0]),
    "Identity": lambda x, _: x[0],
    "MatMul": lambda x, _: x[0] @ x[1],
    "MaxPool": _max_pool,
    "Mul": lambda x, _: x[0] * x[1],
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": lambda x, _: functional.relu(x[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "Sub": lambda x, _: x[0] - x[1],
}
