"""Real plans by TensorRT-RTX, which compiles without a GPU, and what is said where nothing can be compiled."""

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import CompileError, MissingDependencyError, SpecError
from slipway.contract.spec import TensorRT
from slipway.engines import tensorrt as building
from slipway.engines import tensorrt_library
from slipway.engines.tensorrt import Plan, build_plan
from slipway.onnx_graph import save
from slipway.steps.engine_openvino import Engine

CHANNELS, CLASSES, SIDE = 256, 3, 16
PRECISIONS = ("fp32", "fp16", "int8")
Change = Callable[[onnx.ModelProto], None]


def network(precision: str) -> onnx.ModelProto:
    """Convolutions, the mean over the image (the embedding) and a linear layer, typed as `precision` says."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}

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


def compile_rtx(graph: Path, *, max_batch_size: int = 8, **options: Any) -> Plan:
    return build_plan(
        graph, target="tensorrt_rtx", max_batch_size=max_batch_size, options=TensorRT.parse(options, source="test")
    )


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    for precision in PRECISIONS:
        save(network(precision), folder / f"{precision}.onnx")
    return {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}


@pytest.fixture(scope="module")
def plans(graphs: dict[str, Path]) -> dict[str, Plan]:
    return {precision: compile_rtx(graph) for precision, graph in graphs.items()}


def test_the_three_graphs_are_one_network(graphs: dict[str, Path]) -> None:
    """Or their plans' sizes would compare nothing."""
    pixels_nchw = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    answers = {
        precision: Engine(graph, arithmetic="f32", threads=1).run(pixels_nchw)[0] for precision, graph in graphs.items()
    }
    for precision in ("fp16", "int8"):
        assert np.abs(answers[precision] - answers["fp32"]).max() < 0.1 * np.abs(answers["fp32"]).max()


def test_plans_shrink_with_the_types_of_their_graphs(plans: dict[str, Plan]) -> None:
    sizes = {precision: len(plan.data) for precision, plan in plans.items()}
    weights = 9 * CHANNELS * (3 + CHANNELS + CHANNELS)
    assert 4 * weights < sizes["fp32"] < 4 * weights + 2_000_000
    assert sizes["fp16"] < 0.65 * sizes["fp32"]
    assert sizes["int8"] < 0.5 * sizes["fp32"]


def test_a_plan_says_what_it_was_built_with(graphs: dict[str, Path]) -> None:
    plan = compile_rtx(graphs["fp32"], max_batch_size=4, optimal_batch_size=2, optimization_level=1)
    assert plan.settings.version.startswith("1.")
    assert plan.settings.batch_sizes == (1, 2, 4)
    assert plan.settings.optimization_level == 1
    assert plan.settings.compute_capability is None
    assert plan.timing_cache is None
    assert plan.warnings == 0
    assert 0 < plan.seconds < 60


def test_the_profile_is_part_of_the_plan(graphs: dict[str, Path], plans: dict[str, Plan]) -> None:
    assert plans["fp32"].settings.batch_sizes == (1, 8, 8)
    assert compile_rtx(graphs["fp32"], max_batch_size=1).data != plans["fp32"].data


def test_the_settings_reach_the_builder(graphs: dict[str, Path], plans: dict[str, Plan]) -> None:
    trt = tensorrt_library.import_library("tensorrt_rtx")
    log = tensorrt_library.fresh_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(graphs["fp32"]))
    plain = plans["fp32"].settings
    for changed in ({}, {"optimization_level": 5, "version_compatible": True, "hardware_compatibility": "ampere_plus"}):
        settings = plain.model_copy(update=changed)
        tensorrt_library.fresh_log(trt)
        config = building._configure(trt, builder, network, settings)
        assert config.builder_optimization_level == settings.optimization_level
        assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE) is settings.version_compatible
        assert not config.get_flag(trt.BuilderFlag.TF32)
        assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
        assert config.num_optimization_profiles == 1
        assert log.warnings == (settings.hardware_compatibility != "none"), "TensorRT-RTX warns of what it ignores"


@pytest.mark.parametrize("options", [{"hardware_compatibility": "ampere_plus"}, {"version_compatible": True}], ids=str)
def test_what_tensorrt_rtx_does_not_have_is_recorded_as_not_applied(
    options: dict[str, Any], graphs: dict[str, Path]
) -> None:
    plan = compile_rtx(graphs["fp32"], **options)
    assert plan.settings.hardware_compatibility == "none"
    assert not plan.settings.version_compatible
    assert plan.warnings == 0


@pytest.mark.skipif(tensorrt_library.compute_capability() is not None, reason="there is a GPU, which may read it back")
def test_without_a_gpu_the_layers_are_unknown_and_the_plan_says_why(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        assert plan.layers is None
        assert "this machine shows none" in plan.layers_reason


@pytest.mark.parametrize(
    "options",
    [{"optimization_level": 6}, {"hardware_compatibility": "ampere"}, {"optimal_batch_size": 0}, {"workspace": 1}],
    ids=str,
)
def test_options_that_tensorrt_does_not_have_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(options))):
        TensorRT.parse(options, source="test")


def first_conv(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


def unsupported_twice(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    for node in [node for node in model.graph.node if node.op_type == "Relu"][:2]:
        node.op_type, node.domain = "Unheard", "elsewhere"


def unsupported_of_onnx(model: onnx.ModelProto) -> None:
    for node in [node for node in model.graph.node if node.op_type == "Relu"][:2]:
        node.op_type = "Bernoulli"


def mixed_types(model: onnx.ModelProto) -> None:
    half = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(half, model.graph.initializer[0].name))


def wrong_weights(model: onnx.ModelProto) -> None:
    linear = next(tensor for tensor in model.graph.initializer if tensor.name == "linear")
    linear.CopyFrom(numpy_helper.from_array(np.zeros((7, CLASSES), np.float32), "linear"))


def dangling_input(model: onnx.ModelProto) -> None:
    first_conv(model).input[0] = "nowhere"


def weights_outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../secret.bin", "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)


def other_input_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = first_conv(model).input[0] = "images"


def swapped_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.extend([model.graph.output[0]])
    del model.graph.output[0]


def one_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def fixed_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4


def free_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"


def fp16_outputs(model: onnx.ModelProto) -> None:
    for value in model.graph.output:
        cast = helper.make_node("Cast", [f"{value.name}_fp32"], [value.name], to=TensorProto.FLOAT16)
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"{name}_fp32" if name == value.name else name for name in names]
        model.graph.node.append(cast)
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (unsupported_twice, [r"node make_relu0 \(Unheard\): INVALID_NODE", r"node make_relu1 \(Unheard\): "]),
        (unsupported_of_onnx, [r"node make_relu0 \(Bernoulli\): UNSUPPORTED_NODE", r"node make_relu1 \(Bernoulli\): "]),
        (mixed_types, [r"make_conv0\): W has inconsistent type tensor\(float16\)"]),
        (wrong_weights, [r"make_logits_nc\): .*Incompatible dimensions"]),
        (dangling_input, ["input 'nowhere' of node"]),
        (weights_outside, [r"w0, .* lie outside of the ONNX file"]),
        (other_input_name, [r"\('images',\) where \('pixels_nchw',\)"]),
        (swapped_outputs, [r"\('embedding_nd', 'logits_nc'\) where \('logits_nc', 'embedding_nd'\)"]),
        (one_output, [r"\('logits_nc',\) where \('logits_nc', 'embedding_nd'\)"]),
        (fixed_batch, ["pixels_nchw has a fixed batch"]),
        (free_size, [r"pixels_nchw is \(-1, 3, -1, 16\), and all but the batch must be fixed"]),
        (fp16_outputs, [r"logits_nc is FLOAT16; inputs and outputs are FLOAT \(FP32\)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_graph_that_cannot_be_a_plan_of_ours_is_refused_with_every_reason(
    change: Change, messages: list[str], tmp_path: Path
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(9 * 3 * CHANNELS * 4))  # what weights_outside points to
    model = network("fp32")
    change(model)
    graph = tmp_path / "graphs" / "model.onnx"
    graph.parent.mkdir()
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(CompileError, match=r"graphs/model\.onnx: ") as caught:
        compile_rtx(graph)
    text = str(caught.value)
    assert [message for message in messages if re.search(message, text) is None] == [], text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x0_zero", np.int8(3), r"node make_q0 \(QuantizeLinear\): .*Non-zero zero point is not supported"),
        ("x0_scale", np.float32(0), r"node make_q0 \(QuantizeLinear\): .*Scale coefficients must all be positive"),
    ],
    ids=["asymmetric", "zero scale"],
)
def test_a_quantisation_that_tensorrt_does_not_have_is_refused_by_its_node(
    name: str, value: Any, message: str, tmp_path: Path
) -> None:
    model = network("int8")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
    save(model, tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=message):
        compile_rtx(tmp_path / "model.onnx")


@pytest.mark.parametrize(("capability", "shown"), [(None, ""), ("8.6", "\n  Cuda Runtime (cudaError 35)")])
def test_every_error_is_told_once_and_a_missing_gpu_only_where_there_is_one(
    capability: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build without a GPU logs a CUDA error after every other; with one, it says that the driver is too old."""
    monkeypatch.setattr(tensorrt_library, "compute_capability", lambda: capability)
    errors = ["node conv0: types differ\n", "ModelImporter.cpp:1: Begin", "node conv0: types differ\nin conv0"]
    errors.append("Cuda Runtime (cudaError 35)")
    assert tensorrt_library.explain(errors) == "\n  node conv0: types differ\n  in conv0" + shown


@pytest.mark.parametrize(
    "content", [network("fp32").SerializeToString()[:100_000], b"", b"not ONNX at all"], ids=["cut", "empty", "text"]
)
def test_a_file_that_is_no_onnx_graph_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CompileError, match=r"model\.onnx: "):
        compile_rtx(tmp_path / "model.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"model\.onnx: cannot be read: No such file"):
        compile_rtx(tmp_path / "model.onnx")


def compile_tensorrt(graph: Path) -> Plan:
    return build_plan(graph, target="tensorrt", max_batch_size=8, options=TensorRT())


def installed(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_without_tensorrt_the_container_that_has_it_is_named(graphs: dict[str, Path]) -> None:
    with pytest.raises(CompileError, match=r"No module named 'tensorrt'.*build/container\.py compile.*pip install"):
        compile_tensorrt(graphs["fp32"])


def test_without_tensorrt_rtx_the_extra_that_has_it_is_named(
    graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"tensorrt_rtx is not installed: .*slipway\[build\]"):
        compile_rtx(graphs["fp32"])


@pytest.mark.parametrize("version", ["8.6.1", "10.11.0.33", "12.0.0.1"])
def test_a_tensorrt_outside_the_supported_range_is_refused_by_its_version(
    version: str, graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "tensorrt", version)
    with pytest.raises(CompileError, match=rf"tensorrt {version} is installed, and 10\.12 to 11\.x is supported"):
        compile_tensorrt(graphs["fp32"])


@pytest.mark.parametrize("version", ["10.12.0.36", "10.13.3.9.post1", "11.4.0"])
def test_without_a_gpu_tensorrt_is_not_even_started(
    version: str, graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "tensorrt", version)
    monkeypatch.setattr(tensorrt_library, "compute_capability", lambda: None)
    with pytest.raises(CompileError, match=r"compiling for tensorrt needs an NVIDIA GPU .* target tensorrt_rtx"):
        compile_tensorrt(graphs["fp32"])


def test_without_a_driver_there_is_no_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(tensorrt_library.ctypes, "CDLL", no_library)
    assert tensorrt_library.compute_capability() is None
