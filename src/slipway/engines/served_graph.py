"""The graph that an engine serves: a network's own, behind the normalisation of the steps' UINT8 pixels."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Preprocess
from slipway.onnx_graph import INPUT, SERVED_INPUT, load, to_bytes
from slipway.steps.normalize import constants


def served_graph(path: Path, preprocess: Preprocess) -> bytes:
    """The ONNX file whose input is `pixels_nhwc_u8`, UINT8 `[n, H, W, 3]`; equal graphs give equal bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not as `onnx_graph.load` asks.
    """
    model = load(path)
    _normalise_first(model.graph, preprocess)
    return to_bytes(model, input_name=SERVED_INPUT)


def _normalise_first(graph: onnx.GraphProto, preprocess: Preprocess) -> None:
    """Let `graph` take UINT8 and compute its old input by the arithmetic of `steps.normalize`.

    TensorRT takes UINT8 that is cast at once. Transposed before it is normalised, a batch costs OpenVINO nothing more
    than its FP32 input did; the other way round, its constants are applied value by value (0.9 ms at 224 pixels).
    """
    (old,) = graph.input
    batch, channels, height, width = old.type.tensor_type.shape.dim
    for name, constant_c in zip(("offset", "factor"), constants(preprocess.model_dump()), strict=True):
        graph.initializer.append(numpy_helper.from_array(constant_c[:, None, None], f"normalize/{name}"))
    cast, moved, shifted = "normalize/cast", "normalize/transpose", "normalize/sub"
    nodes = [
        helper.make_node("Cast", [SERVED_INPUT], [cast], name=cast, to=TensorProto.FLOAT),
        helper.make_node("Transpose", [cast], [moved], name=moved, perm=[0, 3, 1, 2]),
        helper.make_node("Sub", [moved, "normalize/offset"], [shifted], name=shifted),
        helper.make_node("Mul", [shifted, "normalize/factor"], [INPUT], name="normalize/mul"),
    ]
    later = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *later])
    value = graph.input.add(name=SERVED_INPUT)
    value.type.tensor_type.elem_type = TensorProto.UINT8
    value.type.tensor_type.shape.dim.extend([batch, height, width, channels])
