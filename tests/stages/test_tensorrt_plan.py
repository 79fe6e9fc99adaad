"""What the engine inspector's text says of a plan's layers, and a plan where it cannot be run."""

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from slipway.contract import CompileError, PlanSettings
from slipway.engines.plan import PlanRunner, inspect, layer_precisions, parse_layers
from slipway.engines.tensorrt_library import compute_capability

SETTINGS = PlanSettings(
    version="10.13.3.9",
    compute_capability="9.0",
    batch_sizes=(1, 8, 8),
    optimization_level=3,
    hardware_compatibility="none",
    version_compatible=False,
)

# The shape of TensorRT 10.2's text (NVIDIA/TensorRT issue 4020: ResNet-18 in INT8, detailed verbosity), shortened; the
# last two layers are generated kernels, whose tensors have the short form of the type.
TENSORRT_10: dict[str, Any] = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv0",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "data", "Dimensions": [1, 3, 224, 224], "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [
                {"Name": "Reformatted", "Dimensions": [1, 3, 224, 224], "Format/Datatype": "Row major Int8 format"}
            ],
            "ParameterType": "Reformat",
        },
        {
            "Name": "conv0 + relu0",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "Reformatted", "Format/Datatype": "N/A due to dynamic shapes"}],
            "Outputs": [{"Name": "c0", "Format/Datatype": "Thirty-two wide channel vectorized row major FP32 format"}],
            "Weights": {"Type": "Int8", "Count": 9408},
            "Bias": {"Type": "Float", "Count": 64},
        },
        {
            "Name": "conv1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "c0", "Format/Datatype": "N/A due to dynamic shapes"}],
            "Outputs": [{"Name": "c1", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
        },
        {
            "Name": "__myl_MulSum_myl0_1",
            "LayerType": "kgen",
            "Inputs": [{"Name": "c1", "Format/Datatype": "Half"}, {"Name": "c2", "Format/Datatype": "Float"}],
            "Outputs": [{"Name": "e", "Format/Datatype": "Float"}],
        },
        {"Name": "shape", "LayerType": "shape_call", "Inputs": [], "Outputs": []},
    ],
    "Bindings": ["data", "logits"],
}
# TensorRT 11 writes the type apart from the format (its migration guide: "split of the Format/DataType field").
TENSORRT_11: dict[str, Any] = {
    "Layers": [
        {
            "Name": "conv0",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format": "Channel major, channel % 16 == 0", "Datatype": "Int8"}],
            "Outputs": [{"Name": "y", "Format": "Channel major, channel % 8 == 0", "Datatype": "Half"}],
        },
        {
            "Name": "gemm",
            "LayerType": "gemm",
            "Inputs": [{"Name": "y", "Format": "Row major linear", "DataType": "BFloat16"}],
            "Outputs": [{"Name": "z", "Format": "Row major linear", "DataType": "Float"}],
        },
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}],
}


@pytest.mark.parametrize(
    ("information", "expected"),
    [
        (TENSORRT_10, {"FP16": 2, "FP32": 1, "INT8": 1, "other": 1}),
        (TENSORRT_11, {"INT8": 1, "BF16": 1}),
        ({"Layers": []}, {}),
    ],
    ids=["10", "11", "none"],
)
def test_layers_are_counted_by_the_precision_that_they_compute_in(
    information: dict[str, Any], expected: dict[str, int]
) -> None:
    layers, reason = parse_layers(json.dumps(information))
    assert reason == ""
    assert layers is not None
    assert layer_precisions(layers) == expected
    assert next(iter(layer_precisions(layers)), None) == next(iter(expected), None), "the most frequent comes first"


@pytest.mark.parametrize(
    ("information", "message"),
    [
        (json.dumps({"Layers": ["conv0", "conv1"]}), "without detailed profiling verbosity"),
        ('{"Layers": [', "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
    ],
)
def test_text_without_layers_gives_the_reason(information: str, message: str) -> None:
    layers, reason = parse_layers(information)
    assert layers is None
    assert message in reason


@pytest.mark.skipif(compute_capability() is not None, reason="there is a GPU: tests/gpu reads plans back")
def test_without_a_gpu_nothing_is_read_back() -> None:
    layers, reason = inspect(b"anything", target="tensorrt_rtx", settings=SETTINGS)
    assert layers is None
    assert "this machine shows none" in reason


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed: tests/gpu runs plans")
def test_a_plan_cannot_be_run_without_tensorrt() -> None:
    with pytest.raises(CompileError, match=r"tensorrt cannot be imported .*slipway container compile"):
        PlanRunner(b"anything", settings=SETTINGS).run(np.zeros((1, 3, 8, 8), np.float32))
