"""The search for layers that stay in FP16: surgery on Q/DQ nodes, the ranking, and when it stops."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slipway.contract import Bundle, QuantizeError
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import SensitivitySearch
from slipway.engines import quantize
from slipway.engines.graph_checks import quantised_layers
from slipway.engines.modelopt import with_qdq
from slipway.engines.quantize import open_source
from slipway.engines.sensitivity import keep_in_fp16, quantised_nodes, rank, search
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.evaluation.predict import predict
from slipway.onnx_graph import producers, save
from slipway.steps.engine_openvino import Engine
from tests.support.quantizable import VALIDATION, bundle_of, change_json, network, sealed, set_weight, weights_of
from tests.support.unequal_channels import copy_bundle, enlarge_channel

MAX = {"images": 20, "method": "max"}
SURE = VALIDATION // 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """FP32 is right about every validation image, with answers of all classes, and INT8 of `third` is very wrong."""
    return with_unequal_channels(tmp_path_factory.mktemp("unequal") / "c")


@pytest.fixture(scope="module")
def sample(bundle: Bundle) -> CalibrationSample:
    return CalibrationSample(bundle)


@pytest.fixture(scope="module")
def int8(bundle: Bundle, sample: CalibrationSample) -> onnx.ModelProto:
    return with_qdq(open_source(bundle.path / "model.onnx"), sample, "int8", method="max")


def with_unequal_channels(folder: Path, **spec: Any) -> Bundle:
    spec = {"calibration": MAX, "accuracy": {"max_loss_points": 10}, **spec}
    graph = network()
    plain = bundle_of(graph, folder.with_name("plain"), **spec)
    _, embedding_nd = outputs(plain)
    mean_d = embedding_nd.mean(axis=0)
    weight = weights_of(graph)["linear.weight"]
    balanced = weight - np.outer(mean_d, mean_d @ weight) / np.square(mean_d).sum()  # no class is always the answer
    set_weight(graph, "linear.weight", 10 * balanced.astype(np.float32))
    assert enlarge_channel(graph, "second", factor=1000) == "third"
    return with_truth_of_fp32(bundle_of(graph, folder, **spec))


def outputs(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    dataset = Dataset.read(bundle.path / "dataset.json")
    network = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=1).run
    images = dataset.of("validation")
    found = predict(network, dataset, images, preprocess=bundle.preprocess, batch_size=8, what="")
    return found.logits_nc, found.embedding_nd


def with_truth_of_fp32(bundle: Bundle) -> Bundle:
    """The truth is what FP32 says, of the images that it is sure about: rounding alone flips none of them."""
    logits_nc = outputs(bundle)[0]
    margin_n = np.diff(np.sort(logits_nc)[:, -2:]).ravel()
    sure = np.flatnonzero(margin_n >= np.median(margin_n))
    answers_n = logits_nc.argmax(axis=1)
    assert len(set(answers_n[sure].tolist())) == 3
    dataset = Dataset.read(bundle.path / "dataset.json")
    images = [dataset.images[index].model_copy(update={"class_ids": (int(answers_n[index]),)}) for index in sure]
    assert len(images) == SURE
    dataset.model_copy(update={"images": tuple(images)}).write(bundle.path / "dataset.json")
    return sealed(bundle)


def with_spec(bundle: Bundle, folder: Path, **spec: Any) -> Bundle:
    return copy_bundle(bundle.path, folder, spec=spec)


def sources(model: onnx.ModelProto, name: str) -> list[str]:
    """What makes each input of the node: an operator, or a weight or graph input itself."""
    makers = producers(model.graph)
    node = next(node for node in model.graph.node if node.name == name)
    return [makers[tensor].op_type if tensor in makers else tensor for tensor in node.input]


def test_a_layer_in_fp16_reads_what_its_q_dq_nodes_read_and_the_others_are_as_before(int8: onnx.ModelProto) -> None:
    before = int8.SerializeToString()
    kept = keep_in_fp16(int8, {"second"})
    assert sources(kept, "second")[:2] == ["Relu", "second.weight"]
    assert sources(kept, "third")[:2] == ["DequantizeLinear", "DequantizeLinear"]
    assert quantised_layers(kept, "int8") == ["first", "third"]
    assert int8.SerializeToString() == before


def test_q_dq_nodes_that_another_node_reads_too_stay_for_it(int8: onnx.ModelProto) -> None:
    """`b` feeds the second convolution and the skip connection."""
    assert sources(int8, "skip") == ["Conv", "DequantizeLinear"]
    readers = [tensor for node in int8.graph.node for tensor in node.input if tensor == "b_DequantizeLinear_Output"]
    assert len(readers) == 2, "one pair of Q/DQ nodes serves both"
    kept = keep_in_fp16(int8, {"second"})
    assert sources(kept, "skip") == ["Conv", "DequantizeLinear"]
    both = keep_in_fp16(int8, {"second", "skip"})
    assert sources(both, "skip") == ["Conv", "Relu"]
    assert not [node.name for node in both.graph.node if node.name.startswith("b_")]


def test_without_any_int8_no_q_dq_node_or_scale_is_left_and_the_network_is_the_fp32_one(
    bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample, tmp_path: Path
) -> None:
    none = keep_in_fp16(int8, {node.name for node in quantised_nodes(int8)})
    assert {node.op_type for node in none.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert set(weights_of(none)) == {
        name for node in none.graph.node for name in node.input if name in weights_of(none)
    }
    assert not [name for name in weights_of(none) if "scale" in name or "zero_point" in name]
    save(none, tmp_path / "none.onnx")
    pixels_nchw = sample.stacked(images=8, what="")
    expected, found = (
        Engine(path, arithmetic="f32", threads=1).run(pixels_nchw)[0]
        for path in (bundle.path / "model.onnx", tmp_path / "none.onnx")
    )
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_the_ranking_measures_each_quantised_node_alone_and_finds_the_one_that_suffers(
    int8: onnx.ModelProto, sample: CalibrationSample
) -> None:
    ranking = rank(int8, sample, images=8, threads=1)
    assert {entry.layer for entry in ranking} >= {"first", "second", "third", "skip"}
    assert len(ranking) == len(quantised_nodes(int8))
    assert ranking[0].layer == "third"
    assert ranking[0].error > 0.1
    assert all(entry.error < 0.1 * ranking[0].error for entry in ranking[1:])
    assert [entry.error for entry in ranking] == sorted((entry.error for entry in ranking), reverse=True)


def test_what_plain_int8_loses_is_regained_by_the_worst_layer_in_fp16(bundle: Bundle, tmp_path: Path) -> None:
    manifest = quantize(bundle, tmp_path / "graph")
    found = SensitivitySearch.read(tmp_path / "graph/search.json")
    plain, kept = found.steps
    assert (plain.kept_fp16, plain.accepted, plain.validation.verdict) == ((), False, "fail")
    assert plain.validation.lost > SURE // 3
    assert (kept.kept_fp16, kept.accepted, kept.int8_layers) == (("third",), True, 2)
    assert (kept.validation.lost, kept.validation.images) == (0, SURE)
    assert found.ranking[0].layer == "third"
    assert manifest.measured["not_quantised"] == {
        "linear": "one row per image: INT8 would not be faster",
        "third": "kept in FP16 by the search",
    }
    assert (manifest.measured["int8_layers"], manifest.measured["fp16_layers"]) == (2, 2)
    assert sources(onnx.load(tmp_path / "graph/model.onnx"), "third")[:2] == ["Relu", "third.weight"]


def test_the_same_search_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one", "two"):
        quantize(bundle, tmp_path / name)
    for name in ("model.onnx", "search.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_steps_plain_int8_that_loses_too_much_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    none = with_spec(bundle, tmp_path / "c", sensitive_layers={"max_steps": 0})
    with pytest.raises(QuantizeError, match=r"more than 10 points .*\(0 in FP16: \+.*max_steps, or list fp16"):
        quantize(none, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()
    left = SensitivitySearch.read(tmp_path / "graph-search.json")  # what the report shows of it
    assert [step.accepted for step in left.steps] == [False]
    quantize(with_spec(bundle, tmp_path / "d", sensitive_layers={"max_steps": 4}), tmp_path / "graph")
    assert not (tmp_path / "graph-search.json").exists()


def without_use(int8: onnx.ModelProto) -> onnx.ModelProto:
    """A linear layer that answers the same for every image: nothing that is kept in FP16 helps."""
    ruined = onnx.ModelProto()
    ruined.CopyFrom(int8)
    weight = weights_of(int8)["linear.weight"]
    set_weight(ruined, "linear.weight", np.zeros_like(weight))
    return ruined


def test_when_the_steps_are_spent_the_error_tells_every_step_and_what_to_change(
    bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample, tmp_path: Path
) -> None:
    two = with_spec(bundle, tmp_path / "c", sensitive_layers={"max_steps": 2})
    with pytest.raises(QuantizeError) as raised:
        search(two, without_use(int8), sample)
    message = str(raised.value)
    assert [part in message for part in ("0 in FP16: +", "1 in FP16: +", "2 in FP16: +", "4 in FP16")] == [
        *[True] * 3,
        False,
    ]
    assert "the most sensitive layers are" in message
    assert "calibration.method: entropy" in message


def test_a_graph_without_any_int8_layer_is_not_offered_as_int8(
    bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample, tmp_path: Path
) -> None:
    many = with_spec(bundle, tmp_path / "c", sensitive_layers={"max_steps": 64})
    nodes = len(quantised_nodes(int8))
    with pytest.raises(QuantizeError) as raised:
        search(many, without_use(int8), sample)
    assert f"{nodes} in FP16" not in str(raised.value)
    assert "1 in FP16" in str(raised.value)


def test_answers_that_are_not_finite_are_right_about_nothing(
    bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample, tmp_path: Path
) -> None:
    none = with_spec(bundle, tmp_path / "c", sensitive_layers={"max_steps": 0})
    broken = onnx.ModelProto()
    broken.CopyFrom(int8)
    set_weight(broken, "linear.weight", np.full_like(weights_of(int8)["linear.weight"], np.nan))
    with pytest.raises(QuantizeError, match=rf"\+100\.00 points \({SURE} lost, 0 gained, {SURE} flipped of {SURE}\)"):
        search(none, broken, sample)


def test_the_test_split_is_never_read(bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample) -> None:
    """Its images are named in dataset.json, and do not exist."""
    path = bundle.path / "dataset.json"
    before = path.read_text()
    images = [image.model_dump() for image in Dataset.read(path).images]
    missing = {"path": "nowhere.png", "class_id": 0, "sha256": "0" * 64, "split": "test"}
    try:
        change_json(path, images=[*images, missing])
        _, found = search(bundle, int8, sample)
    finally:
        path.write_text(before)
    assert found.steps[-1].validation.images == SURE
