"""FP8 of a small vision transformer: ModelOpt's Q/DQ nodes, checked and computed node by node on a CPU."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.contract import Bundle, CompileError, GateError, Manifest, QuantizeError
from slipway.contract.engine import Target
from slipway.contract.shared_rules import has_fp8
from slipway.engines import build_engine, choose, quantize, wanted
from slipway.engines.graph_checks import quantised_layers
from slipway.engines.typed_graph import TypedGraph
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.report.build import Build
from slipway.report.views import layers
from tests.support.colours import copy_colours
from tests.support.quantizable import IMAGES, bundle_of, network, transformer
from tests.support.scripts import run_here

PRODUCTS = ["query", "key", "value", "scores", "mixed", "project", "up", "down"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("transformer") / "c"
    return bundle_of(transformer(), folder, precisions=["fp8", "fp16", "fp32"])


@pytest.fixture(scope="module")
def quantised(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of graphs, and what the verb printed."""
    folder = tmp_path_factory.mktemp("graphs")
    done = run_here("quantize", bundle.path, "--out", folder / "fp8", "--precision", "fp8", cwd=folder)
    return folder, done.stdout


@pytest.fixture(scope="module")
def graphs(quantised: tuple[Path, str]) -> Path:
    return quantised[0]


def test_the_verb_counts_the_layers_and_names_those_that_are_not_fp8(quantised: tuple[Path, str]) -> None:
    said = quantised[1]
    assert "10 convolutions and matrix products, 8 in FP8 (80%), 2 in FP16 (20%); opset 19" in said
    assert "not FP8: patches: weight 64x3x8x8: too few channels for FP8 kernels" in said


def test_the_matrix_products_are_fp8_and_every_other_layer_has_a_reason(graphs: Path) -> None:
    graph = onnx.load(graphs / "fp8/model.onnx")
    assert quantised_layers(graph, "fp8") == PRODUCTS
    assert quantised_layers(graph, "int8") == []
    measured = Manifest.open(graphs / "fp8", kind="graph").measured
    assert measured["not_quantised"] == {
        "patches": "weight 64x3x8x8: too few channels for FP8 kernels",
        "linear": "one row per image: FP8 would not be faster",
    }
    counted = {name: measured[name] for name in ("precision", "opset", "layers", "fp8_layers", "int8_layers")}
    assert counted == {"precision": "fp8", "opset": 19, "layers": 10, "fp8_layers": 8, "int8_layers": 0}
    assert measured["calibration_images"] == IMAGES
    assert "search" not in measured


def test_it_answers_like_fp32_and_not_exactly_so(bundle: Bundle, graphs: Path) -> None:
    pixels_nchw = CalibrationSample(bundle).stacked(images=IMAGES, what="")
    exact, rounded = (
        TypedGraph(folder / "model.onnx", threads=1).run(pixels_nchw)[0] for folder in (bundle.path, graphs / "fp8")
    )
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() >= 0.9
    assert 0 < np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max()


def test_a_network_without_a_layer_for_fp8_is_refused_with_the_way_out(tmp_path: Path) -> None:
    small = bundle_of(network(), tmp_path / "c")  # its convolutions have 16 channels
    with pytest.raises(QuantizeError, match="FP8 was requested, but none of 4 layers is quantised; use FP16 or FP32"):
        quantize(small, tmp_path / "graph", precision="fp8")
    assert not (tmp_path / "graph").exists()


def test_tensorrt_rtx_compiles_it_and_the_report_counts_its_layers(
    bundle: Bundle, graphs: Path, tmp_path: Path
) -> None:
    engine = build_engine(bundle, graphs, tmp_path, target="tensorrt_rtx", precision="fp8", reference=None)
    assert (engine.path.name, engine.verdict) == ("tensorrt_rtx-fp8", "proof only")
    (counted,) = layers(Build.open(bundle.path, engines=tmp_path, graphs=graphs))
    assert counted.counts == (("FP8", 8, 8), ("FP16", 2, 16))


@pytest.mark.parametrize(
    ("target", "takes"),
    [
        ("openvino", ["fp32", "fp16"]),
        ("onnxruntime", ["fp16", "fp32"]),
        ("tensorrt", ["fp32", "fp16", "fp8"]),
        ("tensorrt_rtx", ["fp32", "fp16", "fp8"]),
    ],
)
def test_fp8_is_compiled_for_tensorrt_alone(bundle: Bundle, target: Target, takes: list[str]) -> None:
    assert wanted(bundle.spec, target) == takes


@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_a_spec_with_fp8_alone_is_refused_by_a_target_without_it(target: str, tmp_path: Path) -> None:
    bundle = copy_colours(tmp_path / "c", spec={"precisions": ["fp8"]}).bundle
    given = (bundle.path, "--graphs", tmp_path / "graphs", "--out", tmp_path / "engines", "--target", target)
    done = run_here("compile", *given, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert f"the spec lists only fp8, but the target {target} takes fp" in done.stderr


def test_the_cpu_lane_has_no_fp8_to_choose(tmp_path: Path) -> None:
    only = copy_colours(tmp_path / "c", spec={"precisions": ["fp8"]})
    shutil.copytree(only.engine.path, tmp_path / "engines/openvino-fp32")
    with pytest.raises(GateError, match=r"can be served on the cpu lane: none is listed.*list another"):
        choose(only.bundle, tmp_path / "engines", rounds=1, images_per_round=1)


def test_a_card_without_fp8_is_refused_by_its_compute_capability(
    bundle: Bundle, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [has_fp8(capability) for capability in ("7.5", "8.6", "8.9", "9.0", "12.0")] == [False, False, *[True] * 3]
    monkeypatch.setattr("slipway.engines.compile.compute_capability", lambda: "8.6")
    with pytest.raises(CompileError, match=r"8\.9 or later .*, and this one has 8\.6; list int8"):
        build_engine(bundle, graphs, tmp_path, target="tensorrt", precision="fp8", reference=None)
