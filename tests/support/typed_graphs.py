"""One small network in three typings, and TensorRT-RTX to compile it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Preprocess
from slipway.contract.spec import TensorRT
from slipway.engines.tensorrt import BuiltPlan, build_plan

CHANNELS, CLASSES, SIDE = 256, 3, 16
PREPROCESS = Preprocess(input_height=SIDE, input_width=SIDE)
PRECISIONS = ("fp32", "fp16", "int8")


def network(precision: str) -> onnx.ModelProto:
    """Convolutions, the mean over the image (the embedding) and a linear layer, typed as `precision` says."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, NDArray[Any]] = {}

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def constant(name: str, values: Any, dtype: type) -> str:
        weights[name] = np.asarray(values, dtype)
        return name

    working = np.float16 if precision == "fp16" else np.float32
    x = "pixels_nchw"
    if precision == "fp16":
        x = add("Cast", [x], "half", to=TensorProto.FLOAT16)
    for index, channels in enumerate((3, CHANNELS, CHANNELS)):
        kernel = rng.normal(size=(CHANNELS, channels, 3, 3)) / np.sqrt(9 * channels)
        w = f"w{index}"
        if precision == "int8":
            scale_c = np.abs(kernel).max(axis=(1, 2, 3)) / 127
            quantized = np.round(kernel / scale_c[:, None, None, None])
            scales = [constant(f"{w}_scale", scale_c, np.float32), constant(f"{w}_zero", np.zeros(CHANNELS), np.int8)]
            w = add("DequantizeLinear", [constant(f"{w}_int8", quantized, np.int8), *scales], w, axis=0)
            scale, zero = constant(f"x{index}_scale", 0.03, np.float32), constant(f"x{index}_zero", 0, np.int8)
            x = add("QuantizeLinear", [x, scale, zero], f"q{index}")
            x = add("DequantizeLinear", [x, scale, zero], f"dq{index}")
        else:
            constant(w, kernel, working)
        x = add("Conv", [x, w], f"conv{index}", kernel_shape=[3, 3], pads=[1] * 4)
        x = add("Relu", [x], f"relu{index}")
    x = add("GlobalAveragePool", [x], "mean")
    linear = constant("linear", rng.normal(size=(CHANNELS, CLASSES)), working)
    if precision == "fp16":
        flat = add("Flatten", [x], "flat")
        add("Cast", [flat], "embedding_nd", to=TensorProto.FLOAT)
        add("Cast", [add("MatMul", [flat, linear], "product")], "logits_nc", to=TensorProto.FLOAT)
    else:
        add("MatMul", [add("Flatten", [x], "embedding_nd"), linear], "logits_nc")
    sizes = {"logits_nc": CLASSES, "embedding_nd": CHANNELS}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("pixels_nchw", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in sizes.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def compile_rtx(graph: Path, *, max_batch_size: int = 8, **options: Any) -> BuiltPlan:
    return build_plan(
        graph,
        preprocess=PREPROCESS,
        target="tensorrt_rtx",
        max_batch_size=max_batch_size,
        options=TensorRT.parse(options, source="test"),
    )
