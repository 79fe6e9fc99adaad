"""Strongly typed FP16 by AutoCast: what stays in FP32, on which evidence, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.contract import Bundle, Manifest, QuantizeError
from slipway.engines import quantize
from slipway.engines.graph_checks import run_nodes
from slipway.engines.modelopt import nodes_over
from slipway.engines.quantize import open_source
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.onnx_graph import output_sizes
from slipway.steps.engine_openvino import Engine
from slipway.system.files import sha256_file
from tests.support import quantizable as fixtures
from tests.support.colours import contents
from tests.support.quantizable import CHANNELS, CLASSES, IMAGES, bundle_of, network, set_weight, weights_of
from tests.support.unequal_channels import enlarge_channel

bundle = fixtures.bundle


@pytest.fixture(scope="module")
def fp16(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fp16") / "graph"
    quantize(bundle, out, precision="fp16")
    return out


def difference(bundle: Bundle, graph: Path) -> float:
    """Of the logits on calibration images, relative to the greatest."""
    pixels_nchw = CalibrationSample(bundle).stacked(images=8, what="")
    expected, found = (
        Engine(path, arithmetic="f32", threads=1).run(pixels_nchw)[0]
        for path in (bundle.path / "model.onnx", graph / "model.onnx")
    )
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_everything_between_fp32_input_and_outputs_is_fp16(bundle: Bundle, fp16: Path) -> None:
    graph = onnx.load(fp16 / "model.onnx")
    assert {value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)} == {1}
    assert {array.dtype for array in weights_of(graph).values()} == {np.dtype(np.float16)}
    (tensors,) = run_nodes(graph, [next(CalibrationSample(bundle).pixels())])
    outside = ("pixels_nchw", "logits_nc", "embedding_nd")
    assert {str(array.dtype) for name, array in tensors.items() if name not in outside} == {"float16"}
    assert output_sizes(fp16 / "model.onnx") == {"logits_nc": CLASSES, "embedding_nd": CHANNELS}
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_fp16_answers_like_fp32_and_not_exactly_so(bundle: Bundle, fp16: Path) -> None:
    assert 0 < difference(bundle, fp16) < 0.005


def test_the_manifest_says_what_came_in_and_that_nothing_stayed_in_fp32(bundle: Bundle, fp16: Path) -> None:
    assert sorted(contents(fp16)) == ["manifest.json", "model.onnx"]
    manifest = Manifest.open(fp16, kind="graph")
    assert manifest.bundle == bundle.id
    assert manifest.inputs["model"] == sha256_file(bundle.path / "model.onnx")
    assert manifest.inputs["calibration"] == sha256_file(bundle.path / "calibration.json")
    assert manifest.measured == {
        "precision": "fp16",
        "opset": 18,
        "layers": 4,
        "int8_layers": 0,
        "fp8_layers": 0,
        "fp16_layers": 4,
        "nodes_kept_fp32": [],
        "calibration_images": IMAGES,
    }


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, fp16: Path, tmp_path: Path) -> None:
    quantize(bundle, tmp_path / "again", precision="fp16")
    assert (tmp_path / "again/model.onnx").read_bytes() == (fp16 / "model.onnx").read_bytes()


def test_nodes_of_large_numbers_stay_in_fp32_by_exact_name_and_are_listed(tmp_path: Path) -> None:
    """In FP16 the channel would overflow; with its nodes in FP32 the answers stay."""
    graph = network()
    enlarge_channel(graph, "second", factor=1e6)
    graph.graph.node[5].name = "second_of_another_name"  # AutoCast takes patterns, and one matches from the start
    bundle = bundle_of(graph, tmp_path / "c")
    measured = quantize(bundle, tmp_path / "graph", precision="fp16").measured
    assert measured["nodes_kept_fp32"] == ["second", "node_d", "third"]
    assert (measured["layers"], measured["fp16_layers"]) == (4, 2)
    assert difference(bundle, tmp_path / "graph") < 0.005


def test_a_weight_that_fp16_cannot_hold_keeps_its_node_in_fp32(tmp_path: Path) -> None:
    graph = network()
    weight = weights_of(graph)["second.weight"].copy()
    weight[3] = 1e5
    set_weight(graph, "second.weight", weight)
    measured = quantize(bundle_of(graph, tmp_path / "c"), tmp_path / "graph", precision="fp16").measured
    assert "second" in measured["nodes_kept_fp32"]
    assert weights_of(onnx.load(tmp_path / "graph/model.onnx"))["second.weight"].dtype == np.float32


def test_magnitudes_are_those_of_the_images_given(bundle: Bundle) -> None:
    """AutoCast by itself would draw random ones between -1 and 1."""
    source = open_source(bundle.path / "model.onnx")
    pixels_nchw = next(CalibrationSample(bundle).pixels())
    (tensors,) = run_nodes(source, [pixels_nchw])
    limit = float(np.abs(tensors["a"]).max())
    assert "first" not in nodes_over(source, [pixels_nchw], limit=limit)
    assert nodes_over(source, [pixels_nchw, 1.01 * pixels_nchw], limit=limit)[:2] == ["first", "node_b"]
    assert "first" in nodes_over(source, [np.full_like(pixels_nchw, np.nan)], limit=limit)


def test_a_network_that_would_stay_in_fp32_altogether_is_no_fp16(tmp_path: Path) -> None:
    graph = network()
    set_weight(graph, "first.weight", weights_of(graph)["first.weight"] * np.float32(1e4))
    with pytest.raises(QuantizeError, match="AutoCast kept every layer in FP32; use FP32 for this network"):
        quantize(bundle_of(graph, tmp_path / "c"), tmp_path / "graph", precision="fp16")
    assert not (tmp_path / "graph").exists()
