"""Checks of a quantised graph: INT8 or FP8 where it is meant to be, readable by TensorRT, and finite in FP16."""

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from slipway.contract import QuantizeError
from slipway.errors import requiring
from slipway.onnx_graph import INPUT

Quantised = Literal["int8", "fp8"]
TYPES = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
OPSETS = range(9, 25)
"""Opsets that TensorRT's parser reads (10.15 to 11.2). FP16 scales, and so ModelOpt's graphs, need at least 19."""
FP16_MAX = 65504.0
WIDER = "list fp16 in the spec's precisions, which keeps nodes with large values in FP32, or list fp32"
LEAST_SIDE = 16
"""ModelOpt skips matrix products whose depth or width is below this, and most such convolutions."""
MOST_TAPS = 32
"""Height times width of the largest convolution that ModelOpt 0.47 makes FP8."""
Array = npt.NDArray[np.generic]


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every convolution and matrix product."""
    return [node for node in model.graph.node if node.op_type in LAYERS]


def quantised_layers(model: onnx.ModelProto, precision: Quantised) -> list[str]:
    """Names of the layers whose input and weight both come from Q/DQ nodes of that type."""
    zeros = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TYPES[precision]}
    nodes = (node for node in model.graph.node if node.op_type == DEQUANTIZE and not zeros.isdisjoint(node.input[2:]))
    dequantised = {output for node in nodes for output in node.output}
    return [node.name for node in layers(model) if dequantised.issuperset(node.input[:2])]


def check_quantised(
    source: onnx.ModelProto, graph: onnx.ModelProto, precision: Quantised, *, pixels_nchw: Array, otherwise: str = ""
) -> dict[str, str]:
    """Layers that are not of that precision, each with the reason why it is not meant to be.

    Args:
        source: the graph before quantisation, with named nodes.
        graph: the quantised graph.
        pixels_nchw: one image, to find the shapes that the reasons depend on.
        otherwise: reason for a layer that has no other; "" makes such a layer an error.

    Raises:
        QuantizeError: no layer is of that precision, or one is not without a reason; names it.
    """
    quantised, name = set(quantised_layers(graph, precision)), precision.upper()
    left = [node for node in layers(source) if node.name not in quantised]
    if not quantised:
        raise QuantizeError(f"{name} was requested, but none of {len(left)} layers is quantised; use FP16 or FP32")
    reasons = _reasons_to_leave(source, left, precision, shapes=_shapes(source, pixels_nchw))
    missed = [node.name for node in left if node.name not in reasons]
    if missed and otherwise:
        return reasons | dict.fromkeys(missed, otherwise)
    if missed:
        raise QuantizeError(
            f"{len(missed)} of {len(layers(source))} layers should be {name} but are not: {', '.join(missed)}; "
            "ModelOpt does not quantise them in this network, so use FP16 or FP32"
        )
    return reasons


def _reasons_to_leave(
    source: onnx.ModelProto,
    left: Iterable[onnx.NodeProto],
    precision: Quantised,
    *,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, str]:
    constant, name = _constants(source.graph), precision.upper()
    reasons = {}
    for node in left:
        if node.input[0] in constant:
            reasons[node.name] = "reads constants only"
        elif node.input[1] not in constant:
            reasons[node.name] = "multiplies two activations"
        elif node.op_type in ("Gemm", "MatMul"):
            depth, output = shapes[node.input[0]][-1], shapes[node.output[0]]
            if len(output) < 2 or 1 in output[-2:]:
                reasons[node.name] = f"one row per image: {name} would not be faster"
            elif min(depth, output[-1]) < LEAST_SIDE:
                reasons[node.name] = f"depth {depth}, width {output[-1]}: {name} kernels start at {LEAST_SIDE}"
        elif _is_small(node, shapes[node.input[1]], precision):
            reasons[node.name] = (
                f"weight {'x'.join(map(str, shapes[node.input[1]]))}: too few channels for {name} kernels"
            )
        elif precision == "fp8" and math.prod(shapes[node.input[1]][2:]) > MOST_TAPS:
            kernel = "x".join(map(str, shapes[node.input[1]][2:]))
            reasons[node.name] = f"kernel {kernel}: FP8 kernels end at {MOST_TAPS} weights a channel"
    return reasons


def _is_small(convolution: onnx.NodeProto, weight: tuple[int, ...], precision: Quantised) -> bool:
    """Whether ModelOpt 0.47 skips a convolution for its channels; its INT8 kernels work on multiples of 8."""
    if precision == "fp8":
        return min(weight[:2]) <= LEAST_SIDE
    attributes = {attribute.name: attribute for attribute in convolution.attribute}
    kernel = list(attributes["kernel_shape"].ints) if "kernel_shape" in attributes else [1]
    outputs, inputs = weight[:2]
    if min(outputs, inputs) >= LEAST_SIDE:
        return False
    if "group" in attributes and attributes["group"].i > 1:
        return outputs % 8 != 0 or min(kernel) < 3
    enough = max(outputs, inputs) >= LEAST_SIDE or INPUT in convolution.input
    return not enough or len(set(kernel)) > 1 or (outputs % 8 != 0 and inputs % 8 != 0)


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Tensors that no image changes: weights, and values computed from weights only."""
    constant = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if constant.issuperset(node.input):
            constant.update(node.output)
    return constant


def check_numbers(model: onnx.ModelProto, *, largest: float = np.inf) -> None:
    """Check that weights are finite and at most `largest`, and that scales are positive.

    Raises:
        QuantizeError: some are not; names the first.
    """
    scales = {node.input[1] for node in model.graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)}
    wrong = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if not np.isfinite(array).all():
            wrong.append(f"{tensor.name} is not finite; train or export it again")
        elif array.dtype.kind == "f" and np.abs(array).max(initial=0) > largest:
            wrong.append(f"{tensor.name} has a value above {largest:g}; {WIDER}")
        elif tensor.name in scales and not (array > 0).all():
            wrong.append(f"{tensor.name} is a scale of 0; {WIDER}")
    if wrong:
        raise QuantizeError(f"{len(wrong)} of the graph's constants cannot be used: {wrong[0]}")


def check_opset(model: onnx.ModelProto) -> int:
    """The ONNX opset. Raises QuantizeError: TensorRT does not read it, or an operator is of another domain."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    version: int = opsets.get("", opsets.get("ai.onnx", 0))
    if version not in OPSETS:
        raise QuantizeError(f"the graph has opset {version}, but TensorRT reads {OPSETS[0]} to {OPSETS[-1]}")
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise QuantizeError(f"operators that TensorRT lacks: {', '.join(foreign)}")
    return version


def kept_in_fp32(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in FP32 in a graph where only input and outputs are meant to be FP32."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.output)
    fp32 = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in ("Cast", "Constant") and not fp32.isdisjoint(node.output)
    ]


def check_overflow(model: onnx.ModelProto, pixels: Iterable[Array]) -> None:
    """Run every node in its own type on real images.

    Raises:
        QuantizeError: a tensor is not finite; names its node.
    """
    for tensors in run_nodes(model, pixels):
        for node in model.graph.node:
            for array in (tensors[name] for name in node.output if name in tensors):
                if not np.isfinite(array).all():
                    raise QuantizeError(
                        f"node {node.name} ({node.op_type}) gives a {array.dtype} that is not finite on a calibration "
                        f"image (FP16 ends at {FP16_MAX:g}); {WIDER}"
                    )


def run_nodes(model: onnx.ModelProto, pixels: Iterable[Array]) -> Iterator[dict[str, Array]]:
    """Every floating-point tensor that the graph reads and computes for each `pixels_nchw`, by name.

    Q/DQ nodes are left out, since their outputs are bounded. ONNX Runtime keeps each node's own type because every
    tensor is an output; otherwise it would compute FP16 nodes in FP32 and hide an overflow.
    """
    with requiring("onnxruntime", extra="build"):
        import onnxruntime
    open_model = deepcopy(model)
    graph = open_model.graph
    del graph.value_info[:]
    outputs = {value.name for value in graph.output}
    nodes = (node for node in graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE))
    inner = (name for node in nodes for name in node.output if name and name not in outputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in graph.output]
    for pixels_nchw in pixels:
        arrays = zip(names, session.run(None, {INPUT: pixels_nchw}), strict=True)
        yield {INPUT: pixels_nchw} | {name: array for name, array in arrays if array.dtype.kind == "f"}


def _shapes(source: onnx.ModelProto, pixels_nchw: Array) -> dict[str, tuple[int, ...]]:
    """The shape of every floating-point tensor for this image, weights included."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in source.graph.initializer}
    tensors = next(run_nodes(source, [pixels_nchw]))
    return weights | {name: array.shape for name, array in tensors.items()}
