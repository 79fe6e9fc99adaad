"""An engine of ONNX Runtime from a real bundle: computed in the types of its graph, gated, and kept current."""

import html
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from modelopt.onnx.autocast import convert_to_mixed_precision
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import conv2d

from slipway.contract import Bundle, BundleEngine, CompileError, Manifest
from slipway.engines import quantize
from slipway.engines.graph import served_graph
from slipway.engines.typed_graph import TypedGraph
from slipway.report import lane_verdicts, render
from slipway.report.build import Build
from slipway.repository import assemble, pick_engines
from slipway.steps import engine_openvino
from tests.support.coloured_runs import coloured_run
from tests.support.colours import COLOURS
from tests.support.gpu_lanes import with_gpu
from tests.support.quantizable import SIZE, bundle_of, model, network, node, weights_of
from tests.support.scripts import run_here

PIXELS = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)


def openvino(graph: Path) -> np.ndarray:
    return engine_openvino.Engine(graph, arithmetic="f32", threads=1).run(PIXELS)[0]


def typed(graph: Path) -> np.ndarray:
    return TypedGraph(graph, threads=1).run(PIXELS)[0]


def saved(graph: onnx.ModelProto, path: Path) -> Path:
    onnx.save(graph, path)
    return path


def in_fp16(factor: float) -> onnx.ModelProto:
    """The mean colour, multiplied in FP16 and divided again."""
    nodes = [
        node("GlobalAveragePool", ["pixels_nchw"], "mean"),
        node("Flatten", ["mean"], "embedding_nd"),
        helper.make_node("Cast", ["embedding_nd"], ["half"], to=TensorProto.FLOAT16),
        node("Mul", ["half", "factor"], "large"),
        node("Div", ["large", "factor"], "small"),
        helper.make_node("Cast", ["small"], ["logits_nc"], to=TensorProto.FLOAT),
    ]
    graph = model(nodes, {}, embedding_size=3)
    graph.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float16), "factor"))
    return graph


def test_an_fp32_graph_answers_as_in_openvino(tmp_path: Path) -> None:
    graph = saved(network(), tmp_path / "model.onnx")
    np.testing.assert_allclose(typed(graph), openvino(graph), rtol=1e-4, atol=1e-4)


def test_an_int8_graph_answers_as_in_openvino_but_for_its_fp16_remainder(tmp_path: Path) -> None:
    bundle = bundle_of(network(), tmp_path / "bundle", precisions=["int8"])
    quantize(bundle, tmp_path / "graphs/int8", precision="int8")
    graph = tmp_path / "graphs/int8/model.onnx"
    expected = openvino(graph)
    np.testing.assert_allclose(typed(graph), expected, atol=2e-3 * np.abs(expected).max())


def test_an_fp16_node_gives_fp16_numbers_which_openvino_does_not_round_to(tmp_path: Path) -> None:
    graph = saved(in_fp16(3.0), tmp_path / "model.onnx")
    logits_nc = typed(graph)
    assert (logits_nc == logits_nc.astype(np.float16)).all()
    assert not (openvino(graph) == openvino(graph).astype(np.float16)).all(), "it computes in FP32"
    np.testing.assert_allclose(logits_nc, openvino(graph), rtol=2e-3)


def test_every_node_of_an_fp16_chain_rounds_as_torch_does_node_by_node(tmp_path: Path) -> None:
    graph = saved(network(), tmp_path / "fp32.onnx")
    half = convert_to_mixed_precision(onnx_path=str(graph), low_precision_type="fp16", keep_io_types=True)
    weights = {name: half_rounded(torch.tensor(array)) for name, array in weights_of(half).items()}
    pixels_nchw, small = half_rounded(torch.tensor(PIXELS)), {"padding": 1}
    a = half_rounded(conv2d(pixels_nchw, weights["first.weight"], weights["first.bias"], stride=2, **small)).relu()
    b = half_rounded(conv2d(a, weights["second.weight"], **small)).relu()
    c = half_rounded(half_rounded(conv2d(b, weights["third.weight"], **small)) + a).relu()
    logits_nc = half_rounded(half_rounded(c.mean((2, 3))) @ weights["linear.weight"]).numpy()
    served = saved(half, tmp_path / "fp16.onnx")
    near, far = (np.abs(found - logits_nc).max() for found in (typed(served), openvino(served)))
    assert near <= far / 4, "sums in another order may end on the other side of a rounding"


def half_rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float()


def test_an_overflow_in_fp16_is_seen_which_fp32_arithmetic_would_hide(tmp_path: Path) -> None:
    graph = saved(in_fp16(60_000.0), tmp_path / "model.onnx")
    pixels_nchw = PIXELS + 5
    assert np.isfinite(engine_openvino.Engine(graph, arithmetic="f32", threads=1).run(pixels_nchw)[0]).all()
    assert np.isinf(TypedGraph(graph, threads=1).run(pixels_nchw)[0]).all()


def test_a_graph_that_onnx_runtime_does_not_take_is_a_compile_error(tmp_path: Path) -> None:
    nodes = [node("Unheard", ["pixels_nchw"], "embedding_nd"), node("Neg", ["embedding_nd"], "logits_nc")]
    graph = saved(model(nodes, {}), tmp_path / "model.onnx")
    with pytest.raises(CompileError, match=r"model\.onnx: ONNX Runtime does not take it: .*Unheard"):
        TypedGraph(graph, threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run scripts in, with runs/colours: a real bundle whose spec decides for the fallback, its images, and
    its FP16 graph. The limits are wide, since 9 test images prove little."""
    folder = tmp_path_factory.mktemp("fallback")
    limits = {"max_loss_points": 100, "max_flip_points": 100, "prove_classes": False, "confidence": 0.5}
    gpu = with_gpu(fallback="onnxruntime")
    bundle = coloured_run(folder, images=30, precisions=["fp16", "fp32"], accuracy=limits, **gpu)
    quantize(bundle, folder / "runs/colours/graphs/fp16", precision="fp16")
    return folder


COMPILE = ("runs/colours/bundle", "--graphs", "runs/colours/graphs", "--out", "runs/colours/engines")


@pytest.fixture(scope="module")
def compiled(runs: Path) -> str:
    """What compiling printed."""
    return run_here("compile", *COMPILE, "--target", "onnxruntime", cwd=runs).stdout


def test_the_script_gates_what_the_spec_lists_and_names_the_next_step(runs: Path, compiled: str) -> None:
    engines = runs / "runs/colours/engines"
    names = {path.name for path in engines.iterdir() if path.is_dir()}
    assert names == {"openvino-fp32", "onnxruntime-fp16", "onnxruntime-fp32"}
    assert "next: slipway assemble runs/colours/bundle --engines runs/colours/engines --lane gpu" in compiled
    engine = BundleEngine.open(engines / "onnxruntime-fp16", bundle=Bundle.open(runs / "runs/colours/bundle"))
    settings, manifest = engine.settings, engine.manifest
    assert (settings.target, settings.arithmetic, settings.decoder) == ("onnxruntime", "typed", "cpu")
    assert (settings.provider, settings.plan) == ("CPUExecutionProvider", None)
    assert "onnxruntime" in manifest.versions
    assert manifest.measured["gate"]["verdict"] == "pass"
    assert manifest.measured["gate"]["overall"]["images"] == manifest.measured["images"] > 0
    assert not manifest.measured.get("latency"), "a CPU's time says nothing of the GPU that will serve it"
    cpu = json.loads((engines / "openvino-fp32/engine.json").read_text())
    assert "provider" not in cpu, "the cpu lane's file is what it was"


def test_what_passed_is_served_without_a_plan_and_recorded(runs: Path, compiled: str, tmp_path: Path) -> None:
    assert compiled
    bundle = Bundle.open(runs / "runs/colours/bundle")
    classifier = pick_engines(bundle, runs / "runs/colours/engines", lane="gpu")
    assert assemble([classifier], tmp_path / "gpu", lane="gpu").fallback == {"colours": "onnxruntime-fp16"}
    (served,) = (tmp_path / "gpu").glob("engine_*/1/model.onnx")
    assert served.read_bytes() == served_graph(runs / "runs/colours/graphs/fp16/model.onnx", bundle.preprocess)


def test_the_report_shows_it_as_what_the_gpu_lane_serves(runs: Path, compiled: str) -> None:
    assert compiled
    folder = runs / "runs/colours"
    build = Build.open(folder / "bundle", engines=folder / "engines", graphs=folder / "graphs")
    _, gpu = lane_verdicts(build)
    assert ([engine.name for engine in gpu.serves], gpu.tone) == (["onnxruntime-fp16"], "good")
    assert gpu.reason.startswith("serving.gpu.fallback: no TensorRT plan;")
    assert gpu.reason in html.unescape(render(build))


def test_a_fallback_that_is_current_is_left_alone_and_a_newer_onnx_runtime_makes_it_again(
    runs: Path, compiled: str
) -> None:
    assert compiled
    arguments = ("runs/colours", "--target", "onnxruntime", "--dry-run")
    said = run_here("engines", *arguments, cwd=runs).stdout
    assert "0 to make, 4 current" in said
    manifest = runs / "runs/colours/engines/onnxruntime-fp16/manifest.json"
    before = Manifest.read(manifest)
    before.model_copy(update={"versions": before.versions | {"onnxruntime": "1.0"}}).write(manifest)
    said = run_here("engines", *arguments, cwd=runs).stdout
    before.write(manifest)
    assert "→ engines/onnxruntime-fp16: ONNX Runtime 1.0 → " in said


def test_a_run_whose_spec_did_not_decide_for_it_gets_no_fallback(tmp_path: Path) -> None:
    bundle = shutil.copytree(COLOURS / "bundle", tmp_path / "runs/plain/bundle")
    said = run_here("engines", bundle.parent, "--target", "onnxruntime", "--dry-run", cwd=tmp_path).stdout
    assert "onnxruntime-" not in said
