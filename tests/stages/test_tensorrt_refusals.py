"""What cannot be a plan of ours, and what is said where nothing can be compiled."""

import ctypes
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

from slipway.contract import CompileError, MissingDependencyError, Preprocess
from slipway.contract.installed import Installed
from slipway.contract.spec import TensorRT
from slipway.engines import tensorrt_library
from slipway.engines.tensorrt import BuiltPlan, build_plan
from slipway.onnx_graph import save
from tests.support.cards import H100
from tests.support.colours import COLOURS
from tests.support.scripts import refused, run_here
from tests.support.typed_graphs import CHANNELS, CLASSES, SIDE, compile_rtx, network

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that compiles."""
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    save(network("fp32"), path)
    return path


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
        (fixed_batch, ["pixels_nchw has a fixed batch"]),
        (free_size, [r"pixels_nhwc_u8 is \(-1, -1, 16, 3\), but all except the batch must be fixed"]),
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


def compile_tensorrt(graph: Path) -> BuiltPlan:
    preprocess = Preprocess(input_height=SIDE, input_width=SIDE)
    return build_plan(graph, preprocess=preprocess, target="tensorrt", max_batch_size=8, options=TensorRT())


def installed(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_without_tensorrt_the_container_that_has_it_is_named(graph: Path) -> None:
    with pytest.raises(CompileError, match=r"No module named 'tensorrt'.*slipway container compile.*pip install"):
        compile_tensorrt(graph)


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt_rtx"])
def test_without_the_compiler_not_even_the_reference_is_built(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    words = (COLOURS / "bundle", "--graphs", "graphs", "--out", "engines", "--target", target)
    done = run_here("compile", *words, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert re.search(rf"{target} (cannot be imported|is not installed)", done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("release", "has", "says"),
    [
        ("26.08", {"dali": "2.4.0"}, "DALI 2.2.0 is needed, and 2.4.0 is installed"),
        ("26.08", {"tensorrt": "11.3.0"}, "TensorRT 11.2.1 is needed, and 11.3.0 is installed in release 26.08"),
        ("26.08", {"cuda": "12.9"}, "driver 580.95.05 runs CUDA 12.9, and release 26.08 has CUDA 13.4.1"),
        ("26.06", {"dali": "2.1.1"}, "release '26.06': "),
    ],
)
def test_in_an_image_that_does_not_fit_its_server_or_driver_not_even_the_reference_is_built(
    release: str, has: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = {"dali": "2.2.0", "tensorrt": "11.2.1.2", "cuda": "13.0"} | has
    here = Installed(release=release, tensorrt=None, dali=has["dali"], nvimgcodec="0.8.0.22")
    monkeypatch.setattr(Installed, "here", classmethod(lambda _: here))
    monkeypatch.setattr(tensorrt_library, "cards", lambda: (H100.model_copy(update={"cuda": has["cuda"]}),))
    installed(monkeypatch, "tensorrt", has["tensorrt"])
    words = (COLOURS / "bundle", "--graphs", "graphs", "--out", "engines", "--target", "tensorrt")
    assert says in refused("compile", *words, cwd=tmp_path)
    assert not (tmp_path / "engines").exists()


def test_without_tensorrt_rtx_the_extra_that_has_it_is_named(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"tensorrt_rtx is not installed: .*slipway\[build\]"):
        compile_rtx(graph)


@pytest.mark.parametrize("version", ["8.6.1", "10.11.0.33", "12.0.0.1"])
def test_a_tensorrt_outside_the_supported_range_is_refused_by_its_version(
    version: str, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "tensorrt", version)
    with pytest.raises(CompileError, match=rf"tensorrt {version} is installed, but only 10\.12 to 11\.x is supported"):
        compile_tensorrt(graph)


@pytest.mark.parametrize("version", ["10.12.0.36", "10.13.3.9.post1", "11.4.0"])
def test_without_a_gpu_tensorrt_is_not_even_started(version: str, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", version)
    monkeypatch.setattr(tensorrt_library, "cards", lambda: ())
    with pytest.raises(CompileError, match=r"compiling for tensorrt needs an NVIDIA GPU .* target tensorrt_rtx"):
        compile_tensorrt(graph)


def test_without_a_driver_there_is_no_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert tensorrt_library.compute_capability() is None
