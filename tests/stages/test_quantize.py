"""Explicit INT8 of a small convolutional network from a bundle's calibration sample, or a clear refusal."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.contract import Bundle, Manifest
from slipway.contract.evidence.build import SensitivitySearch
from slipway.engines import quantize
from slipway.engines.modelopt import with_qdq
from slipway.engines.quantize import open_source
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.onnx_graph import output_sizes, producers
from slipway.steps.engine_openvino import Engine
from slipway.system.files import sha256_file
from tests.support import quantizable as fixtures
from tests.support.colours import contents
from tests.support.quantizable import CHANNELS, CLASSES, IMAGES, VALIDATION, bundle_of, network, weights_of

bundle = fixtures.bundle


@pytest.fixture(scope="module")
def int8(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "graph"
    quantize(bundle, out)
    return out


def test_convolutions_take_input_and_weights_from_q_dq_nodes(int8: Path) -> None:
    graph = onnx.load(int8 / "model.onnx").graph
    makers = producers(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    assert {makers[name].op_type for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}


def test_the_weights_are_there_unquantised_in_fp16(bundle: Bundle, int8: Path) -> None:
    before, after = weights_of(onnx.load(bundle.path / "model.onnx")), weights_of(onnx.load(int8 / "model.onnx"))
    for name in ("first.weight", "second.weight", "third.weight", "linear.weight"):
        assert after[name].dtype == np.float16
        np.testing.assert_array_equal(after[name], before[name].astype(np.float16))


def test_the_graph_keeps_its_tensors_its_dynamic_batch_and_an_opset_with_fp16_scales(int8: Path) -> None:
    model = onnx.load(int8 / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"pixels_nchw": ["n", 3, 32, 32], "logits_nc": ["n", CLASSES], "embedding_nd": ["n", CHANNELS]}
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 19}
    assert output_sizes(int8 / "model.onnx") == {"logits_nc": CLASSES, "embedding_nd": CHANNELS}


@pytest.mark.parametrize("batch", [1, 5])
def test_int8_answers_like_fp32_and_not_exactly_so(bundle: Bundle, int8: Path, batch: int) -> None:
    pixels_nchw = CalibrationSample(bundle).stacked(images=batch, what="")
    assert pixels_nchw.shape == (batch, 3, 32, 32)
    exact, rounded = (
        Engine(folder / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw) for folder in (bundle.path, int8)
    )
    for expected, found in zip(exact, rounded, strict=True):
        assert found.shape == expected.shape
        difference = np.abs(found - expected).max()
        assert 0 < difference < 0.1 * np.abs(expected).max()


def test_the_manifest_says_what_came_in_and_what_became_of_every_layer(bundle: Bundle, int8: Path) -> None:
    assert sorted(contents(int8)) == ["manifest.json", "model.onnx", "search.json"]
    manifest = Manifest.open(int8, kind="graph")
    assert manifest.bundle == bundle.id
    assert manifest.inputs == {
        "bundle": sha256_file(bundle.path / "manifest.json"),
        "model": sha256_file(bundle.path / "model.onnx"),
        "calibration": sha256_file(bundle.path / "calibration.json"),
    }
    measured = manifest.measured
    assert measured["not_quantised"] == {"linear": "one row per image: INT8 would not be faster"}
    counts = {name: measured[name] for name in ("layers", "int8_layers", "fp16_layers", "nodes_kept_fp32")}
    assert counts == {"layers": 4, "int8_layers": 3, "fp16_layers": 1, "nodes_kept_fp32": []}
    assert (measured["precision"], measured["opset"]) == ("int8", 19)
    assert (measured["calibration_images"], measured["calibration_method"]) == (IMAGES, "entropy")
    assert {"nvidia-modelopt", "onnxruntime"} <= manifest.versions.keys()


def test_plain_int8_that_validation_accepts_is_one_step_without_a_ranking(int8: Path) -> None:
    search = SensitivitySearch.read(int8 / "search.json")
    (step,) = search.steps
    assert step.accepted
    assert (step.kept_fp16, step.int8_layers, step.validation.images) == ((), 3, VALIDATION)
    assert search.ranking == ()


def test_the_same_bundle_gives_the_same_bytes(int8: Path, tmp_path: Path) -> None:
    quantize(bundle_of(network(), tmp_path / "c"), tmp_path / "again")
    assert (tmp_path / "again/model.onnx").read_bytes() == (int8 / "model.onnx").read_bytes()
    assert (tmp_path / "again/search.json").read_bytes() == (int8 / "search.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "c", "c-data"]


def test_the_bundle_stays_as_it_was(tmp_path: Path) -> None:
    """ModelOpt writes inferred shapes into the file that it is given."""
    bundle = bundle_of(network(), tmp_path / "c")
    before = contents(bundle.path)
    quantize(bundle, tmp_path / "graph")
    assert contents(bundle.path) == before


@pytest.mark.parametrize(
    "options", [{"seed": 1}, {"calibration": {"images": IMAGES, "method": "max"}}], ids=["images", "method"]
)
def test_other_images_or_another_method_give_other_ranges(
    options: dict[str, object], int8: Path, tmp_path: Path
) -> None:
    manifest = quantize(bundle_of(network(), tmp_path / "c", **options), tmp_path / "graph")
    assert manifest.measured["calibration_method"] == ("max" if "calibration" in options else "entropy")
    assert (tmp_path / "graph/model.onnx").read_bytes() != (int8 / "model.onnx").read_bytes()


def test_by_max_the_range_of_the_input_is_the_greatest_magnitude_of_all_calibration_images(tmp_path: Path) -> None:
    bundle = bundle_of(network(), tmp_path / "c", preprocess={"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]})
    sample = CalibrationSample(bundle)
    greatest = np.array([np.abs(pixels_nchw).max() for pixels_nchw in sample.pixels()])
    assert len(greatest) == IMAGES
    graph = with_qdq(open_source(bundle.path / "model.onnx"), sample, "int8", method="max")
    (quantizer,) = (node for node in graph.graph.node if node.name.startswith("pixels_nchw_QuantizeLinear"))
    scale = weights_of(graph)[quantizer.input[1]]
    np.testing.assert_allclose(float(scale), greatest.max() / 127, rtol=1e-3)


def test_calibration_images_are_decoded_as_they_are_asked_for(bundle: Bundle) -> None:
    """Memory for 500 large images would be gigabytes; one batch is held."""
    pixels = CalibrationSample(bundle).pixels()
    first = next(pixels)
    assert first.shape == (1, 3, 32, 32)
    assert first.base is not None
    assert len(first.base) < IMAGES


def test_a_few_calibration_images_are_taken_from_the_whole_list(tmp_path: Path) -> None:
    """The list is sorted by class."""
    sample = CalibrationSample(bundle_of(network(), tmp_path / "c"))
    all_of_them = np.concatenate(list(sample.pixels()))
    few = sample.stacked(images=4, what="")
    np.testing.assert_array_equal(few, all_of_them[[0, 5, 10, 15]])
    assert len(sample.stacked(images=1000, what="")) == IMAGES
