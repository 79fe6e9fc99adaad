"""Bundles that cannot be quantised: each a clear refusal, and nothing half-written."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slipway.contract import Bundle, DataError, ManifestError, QuantizeError, SpecError
from slipway.contract.bundle import CalibrationList
from slipway.contract.spec import Calibration
from slipway.engines import quantize
from slipway.system.files import sha256_bytes
from tests.support.colours import copy_colours
from tests.support.image_files import encode, photo
from tests.support.quantizable import (
    IMAGES,
    bundle_of,
    network,
    network_without_weights,
    sealed,
    set_weight,
    weights_of,
    write_dataset,
)
from tests.support.quantizable import node as make_node


def test_fewer_calibration_images_than_asked_for_is_an_error(tmp_path: Path) -> None:
    bundle = bundle_of(network(), tmp_path / "c", calibration={"images": IMAGES + 1})
    with pytest.raises(QuantizeError, match=rf"{IMAGES} calibration images, but the spec asks for {IMAGES + 1}"):
        quantize(bundle, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_500_calibration_images_are_asked_for_unless_the_spec_says_fewer(tmp_path: Path) -> None:
    assert Calibration().images == 500
    bundle = bundle_of(network(), tmp_path / "c", calibration=Calibration().model_dump())
    with pytest.raises(QuantizeError, match=r"the spec asks for 500; .* set calibration.images: 20 in the spec"):
        quantize(bundle, tmp_path / "graph")


def test_calibration_images_of_one_class_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match=rf"all {IMAGES} calibration images are of class 'blue'"):
        quantize(bundle_of(network(), tmp_path / "c", classes=1), tmp_path / "graph")


def test_a_changed_calibration_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = bundle_of(network(), tmp_path / "c").path
    image = folder / "calibration/00003.png"
    image.write_bytes(encode(photo(40, 32, seed=99), "PNG"))
    with pytest.raises(ManifestError, match=r"calibration/00003\.png: changed since"):
        Bundle.open(folder)


def test_a_calibration_image_that_serving_refuses_is_named(tmp_path: Path) -> None:
    def break_one(bundle: Path) -> None:
        path = bundle / "calibration/00007.png"
        path.write_bytes(path.read_bytes()[:60])
        listing = CalibrationList.read(bundle / "calibration.json")
        images = [
            image.model_copy(update={"sha256": sha256_bytes(path.read_bytes())}) if image.file == path.name else image
            for image in listing.images
        ]
        CalibrationList(images=tuple(images)).write(bundle / "calibration.json")

    bundle = reseal(bundle_of(network(), tmp_path / "c"), break_one)
    with pytest.raises(DataError, match=r"00007\.png: corrupt"):
        quantize(bundle, tmp_path / "graph")


def reseal(bundle: Bundle, change: Callable[[Path], None]) -> Bundle:
    change(bundle.path)
    return sealed(bundle)


def with_weight(value: float) -> onnx.ModelProto:
    graph = network()
    weight = weights_of(graph)["second.weight"].copy()
    weight[3, 2, 1, 0] = value
    set_weight(graph, "second.weight", weight)
    return graph


def external() -> bytes:
    graph = network()
    tensor = graph.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="../../secrets.bin")
    tensor.ClearField("raw_data")
    return graph.SerializeToString()


def quantised_already() -> onnx.ModelProto:
    graph = network()
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    graph.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    graph.graph.node.insert(0, make_node("QuantizeLinear", ["pixels_nchw", "scale", "zero"], "q"))
    graph.graph.node.insert(1, make_node("DequantizeLinear", ["q", "scale", "zero"], "dq"))
    graph.graph.node[2].input[0] = "dq"
    return graph


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network().SerializeToString()[:3000], "cut short, or no ONNX file"),
        (lambda: b"", r"has tensors \(\) where \('pixels_nchw',\)"),
        (lambda: b"\x89PNG\r\n\x1a\n" * 9, "cut short, or no ONNX file"),
        (external, r"1 weights \(first\.weight, …\) lie outside of the ONNX file"),
        (lambda: network(batch=8).SerializeToString(), "pixels_nchw has a fixed batch"),
        (lambda: network(input_name="input").SerializeToString(), r"\('input',\) where \('pixels_nchw',\)"),
        (lambda: with_weight(np.nan), "second.weight is not finite"),
        (lambda: with_weight(-np.inf), "second.weight is not finite"),
        (quantised_already, "already quantised"),
    ],
    ids=["cut", "empty", "an image", "weights elsewhere", "static", "input name", "NaN", "infinite", "Q/DQ"],
)
def test_a_graph_that_cannot_be_taken_is_refused_with_the_reason_and_nothing_is_left(
    make: Callable[[], onnx.ModelProto | bytes], message: str, precision: str, tmp_path: Path
) -> None:
    bundle = bundle_of(make(), tmp_path / "c")
    with pytest.raises(QuantizeError, match=message):
        quantize(bundle, tmp_path / "graph", precision=precision)
    assert sorted(os.listdir(tmp_path)) == ["c", "c-data"]


def test_weights_that_fp16_cannot_hold_are_an_error_in_int8(tmp_path: Path) -> None:
    """ModelOpt would clamp them, and write so to a log alone."""
    with pytest.raises(QuantizeError, match=r"second\.weight has a value above 65504; list fp16"):
        quantize(bundle_of(with_weight(1e6), tmp_path / "c"), tmp_path / "graph")


def test_activations_that_overflow_fp16_are_an_error_by_the_name_of_the_node(tmp_path: Path) -> None:
    graph = network()
    set_weight(graph, "first.weight", weights_of(graph)["first.weight"] * np.float32(2e4))
    with pytest.raises(QuantizeError, match=r"node first \(Conv\) gives a float16 that is not finite"):
        quantize(bundle_of(graph, tmp_path / "c"), tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_a_channel_without_weights_is_no_scale_of_zero(tmp_path: Path) -> None:
    graph = network()
    weight = weights_of(graph)["second.weight"].copy()
    weight[5] = 0
    set_weight(graph, "second.weight", weight)
    assert quantize(bundle_of(graph, tmp_path / "c"), tmp_path / "graph").measured["int8_layers"] == 3


def test_nodes_without_names_or_with_the_same_one_get_names_of_their_own(tmp_path: Path) -> None:
    graph = network()
    for index, each in enumerate(graph.graph.node):
        each.name = "" if index % 2 else "same"
    manifest = quantize(bundle_of(graph, tmp_path / "c"), tmp_path / "graph")
    assert manifest.measured["int8_layers"] == 3
    assert list(manifest.measured["not_quantised"]) == ["MatMul_9"]


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_graph_without_layers_is_an_error_and_leaves_nothing(precision: str, tmp_path: Path) -> None:
    bundle = bundle_of(network_without_weights(), tmp_path / "c")
    with pytest.raises(QuantizeError, match="requested"):
        quantize(bundle, tmp_path / "graph", precision=precision)
    assert sorted(os.listdir(tmp_path)) == ["c", "c-data"]


def test_a_graph_whose_every_layer_is_too_small_is_an_error(tmp_path: Path) -> None:
    bundle = copy_colours(tmp_path / "c").bundle
    with pytest.raises(QuantizeError, match="INT8 was requested, but none of 2 layers is quantised"):
        quantize(bundle, tmp_path / "graph")


def test_a_bundle_without_its_data_set_or_validation_images_cannot_be_judged(tmp_path: Path) -> None:
    bundle = bundle_of(network(), tmp_path / "c")
    (tmp_path / "c-data/00004.png").unlink()
    with pytest.raises(DataError, match=r"00004\.png: cannot be read: .*; run this where training ran"):
        quantize(bundle, tmp_path / "graph")
    without = reseal(bundle, lambda folder: write_dataset(tmp_path / "other", folder, split="train"))
    with pytest.raises(QuantizeError, match="no validation images to judge INT8 with"):
        quantize(without, tmp_path / "graph")
    nothing = reseal(bundle, lambda folder: (folder / "dataset.json").unlink())
    with pytest.raises(SpecError, match=r"dataset\.json: cannot be read"):
        quantize(nothing, tmp_path / "graph")
