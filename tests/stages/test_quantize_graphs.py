"""What every graph of ours is, and what a quantised one has to be: checks that a doctored graph fails."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from slipway.contract import Bundle, QuantizeError
from slipway.engines.graph_checks import (
    check_numbers,
    check_opset,
    check_overflow,
    check_quantised,
    kept_in_fp32,
    quantised_layers,
    run_nodes,
)
from slipway.engines.modelopt import with_qdq
from slipway.engines.quantize import open_source
from slipway.engines.sensitivity import keep_in_fp16
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.onnx_graph import save
from tests.support import quantizable as fixtures
from tests.support.quantizable import CHANNELS, SIZE, bundle_of, model, network, node, set_weight, weights_of

bundle = fixtures.bundle


@pytest.fixture(scope="module")
def source(bundle: Bundle) -> onnx.ModelProto:
    return open_source(bundle.path / "model.onnx")


@pytest.fixture(scope="module")
def pixels_nchw(bundle: Bundle) -> np.ndarray:
    return next(CalibrationSample(bundle).pixels())


@pytest.fixture
def int8(bundle: Bundle, source: onnx.ModelProto, made: dict[str, bytes]) -> onnx.ModelProto:
    """A copy for each test."""
    if "int8" not in made:
        made["int8"] = with_qdq(source, CalibrationSample(bundle), "int8", method="max").SerializeToString()
    return onnx.ModelProto.FromString(made["int8"])


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return {}


def test_every_layer_is_int8_or_has_a_reason(
    source: onnx.ModelProto, int8: onnx.ModelProto, pixels_nchw: np.ndarray
) -> None:
    assert quantised_layers(int8, "int8") == ["first", "second", "third"]
    reasons = check_quantised(source, int8, "int8", pixels_nchw=pixels_nchw)
    assert reasons == {"linear": "one row per image: INT8 would not be faster"}


def test_a_layer_that_lost_its_q_dq_nodes_is_named(
    source: onnx.ModelProto, int8: onnx.ModelProto, pixels_nchw: np.ndarray
) -> None:
    doctored = keep_in_fp16(int8, {"second"})
    with pytest.raises(QuantizeError, match="1 of 4 layers should be INT8 but are not: second;"):
        check_quantised(source, doctored, "int8", pixels_nchw=pixels_nchw)


def test_a_layer_whose_weight_alone_is_quantised_is_not_int8(int8: onnx.ModelProto) -> None:
    third = next(each for each in int8.graph.node if each.name == "third")
    third.input[0] = "d"
    assert quantised_layers(int8, "int8") == ["first", "second"]


def test_a_layer_that_vanished_is_named(
    source: onnx.ModelProto, int8: onnx.ModelProto, pixels_nchw: np.ndarray
) -> None:
    next(each for each in int8.graph.node if each.name == "third").name = "fourth"
    with pytest.raises(QuantizeError, match="are not: third;"):
        check_quantised(source, int8, "int8", pixels_nchw=pixels_nchw)


def odd_layers() -> onnx.ModelProto:
    """Layers that ModelOpt leaves out, one for each of its rules, beside some that it just takes."""
    sizes = {
        "enough": (CHANNELS, 3, 3, 3),
        "depthwise": (CHANNELS, 1, 3, 3),
        "pointwise_groups": (CHANNELS, 1, 1, 1),
        "twelve": (12, CHANNELS, 3, 3),
        "of_twelve": (12, 12, 3, 3),
        "odd_groups": (12, 1, 3, 3),
        "back": (CHANNELS, 12, 3, 3),
        "wide": (CHANNELS, 8, 1, 3),
    }
    groups = {"depthwise": CHANNELS, "pointwise_groups": CHANNELS, "odd_groups": 12, "wide": 2}
    rng = np.random.default_rng(0)
    weights = {f"{name}.weight": rng.normal(size=size) / 4 for name, size in sizes.items()}
    nodes, tensor = [], "pixels_nchw"
    for name, size in sizes.items():
        pads = [size[2] // 2, size[3] // 2] * 2
        options = {"kernel_shape": list(size[2:]), "pads": pads, "group": groups.get(name, 1)}
        nodes += [
            node("Conv", [tensor, f"{name}.weight"], name, name=name, **options),
            node("Relu", [name], f"{name}_r"),
        ]
        tensor = f"{name}_r"
    weights |= {"rows": rng.normal(size=(SIZE, SIZE)) / 4, "few": rng.normal(size=(SIZE, 8)) / 4}
    weights |= {"linear.weight": rng.normal(size=(CHANNELS, 3))}
    nodes += [
        node("MatMul", [tensor, "rows"], "by_rows", name="by_rows"),
        node("MatMul", ["by_rows", tensor], "by_itself", name="by_itself"),
        node("MatMul", ["by_itself", "few"], "by_few", name="by_few"),
        node("GlobalAveragePool", ["by_few"], "mean"),
        node("Flatten", ["mean"], "embedding_nd"),
        node("Gemm", ["embedding_nd", "linear.weight"], "logits_nc", name="linear"),
    ]
    return model(nodes, weights)


def test_layers_that_modelopt_leaves_out_by_rule_are_listed_with_the_rule(tmp_path: Path) -> None:
    bundle = bundle_of(odd_layers(), tmp_path / "c")
    source, sample = open_source(bundle.path / "model.onnx"), CalibrationSample(bundle)
    int8 = with_qdq(source, sample, "int8", method="max")
    reasons = check_quantised(source, int8, "int8", pixels_nchw=next(sample.pixels()))
    small = "too few channels for INT8 kernels"
    assert reasons == {
        "pointwise_groups": f"weight 16x1x1x1: {small}",
        "of_twelve": f"weight 12x12x3x3: {small}",
        "odd_groups": f"weight 12x1x3x3: {small}",
        "wide": f"weight 16x8x1x3: {small}",
        "by_few": "depth 32, width 8: INT8 kernels start at 16",
        "linear": "one row per image: INT8 would not be faster",
    }
    assert quantised_layers(int8, "int8") == ["enough", "depthwise", "twelve", "back", "by_rows", "by_itself"]


def test_identities_do_not_hide_a_layer_from_modelopt(tmp_path: Path) -> None:
    """torch leaves one where a slice takes everything."""
    graph = network()
    relu = next(index for index, each in enumerate(graph.graph.node) if each.output[0] == "d")
    third = graph.graph.node[relu + 1]
    graph.graph.node.insert(relu + 1, node("Identity", ["d"], "the_same"))
    graph.graph.node[relu + 2].input[0] = "the_same"
    assert third.name == "third"
    bundle = bundle_of(graph, tmp_path / "c")
    source, sample = open_source(bundle.path / "model.onnx"), CalibrationSample(bundle)
    int8 = with_qdq(source, sample, "int8", method="max")
    assert check_quantised(source, int8, "int8", pixels_nchw=next(sample.pixels())).keys() == {"linear"}


def test_a_scale_of_zero_or_a_constant_that_is_not_finite_is_named(int8: onnx.ModelProto) -> None:
    check_numbers(int8)
    scale = next(each.input[1] for each in int8.graph.node if each.op_type == "QuantizeLinear")
    set_weight(int8, scale, np.zeros_like(weights_of(int8)[scale]))
    with pytest.raises(QuantizeError, match="is a scale of 0"):
        check_numbers(int8)
    set_weight(int8, scale, np.full_like(weights_of(int8)[scale], np.inf))
    with pytest.raises(QuantizeError, match="is not finite"):
        check_numbers(int8)


def test_an_opset_or_an_operator_that_tensorrt_does_not_read_is_an_error(int8: onnx.ModelProto) -> None:
    assert check_opset(int8) == 19
    int8.graph.node[3].domain = "com.microsoft"
    with pytest.raises(QuantizeError, match=r"operators that TensorRT lacks: com\.microsoft\."):
        check_opset(int8)
    int8.opset_import[0].version = 25
    with pytest.raises(QuantizeError, match="opset 25, but TensorRT reads 9 to 24"):
        check_opset(int8)


def half_network(*, weight: float) -> onnx.ModelProto:
    """A sum of 27 pixels times `weight` in FP16, and a thousandth of it: FP32 arithmetic would hide an overflow."""
    nodes = [
        node("Cast", ["pixels_nchw"], "half", name="to_fp16", to=TensorProto.FLOAT16),
        node("Conv", ["half", "large"], "a", name="overflows", kernel_shape=[3, 3]),
        node("Conv", ["a", "small"], "b", name="hides_it", kernel_shape=[1, 1]),
        node("Cast", ["b"], "c", name="to_fp32", to=TensorProto.FLOAT),
        node("GlobalAveragePool", ["c"], "d"),
        node("Flatten", ["d"], "embedding_nd"),
        node("Identity", ["embedding_nd"], "logits_nc"),
    ]
    graph = model(nodes, {}, embedding_size=3)
    for name, array in {"large": np.full((16, 3, 3, 3), weight), "small": np.full((3, 16, 1, 1), 1e-3)}.items():
        graph.graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), name))
    return graph


def test_an_overflow_that_later_nodes_hide_is_named_by_the_node_that_made_it() -> None:
    white = np.ones((1, 3, SIZE, SIZE), np.float32)
    check_overflow(half_network(weight=1000), [white])
    with pytest.raises(QuantizeError, match=r"node overflows \(Conv\) gives a float16 that is not finite"):
        check_overflow(half_network(weight=3000), [white])
    check_overflow(half_network(weight=3000), [white / 4])


def test_nan_pixels_are_an_overflow_of_the_first_node(source: onnx.ModelProto) -> None:
    with pytest.raises(QuantizeError, match=r"node first \(Conv\) gives a float32 that is not finite"):
        check_overflow(source, [np.full((1, 3, SIZE, SIZE), np.nan, np.float32)])


def test_every_node_is_run_with_its_own_type(int8: onnx.ModelProto, pixels_nchw: np.ndarray) -> None:
    (tensors,) = run_nodes(int8, [pixels_nchw])
    assert {name: str(tensors[name].dtype) for name in ("pixels_nchw", "a", "f", "logits_nc", "embedding_nd")} == {
        "pixels_nchw": "float32",
        "a": "float16",
        "f": "float16",
        "logits_nc": "float32",
        "embedding_nd": "float32",
    }
    assert not any("QuantizeLinear" in name for name in tensors)


def test_nodes_that_compute_in_fp32_are_found_by_their_types(source: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    assert kept_in_fp32(int8) == []
    assert kept_in_fp32(source) == [each.name for each in source.graph.node]
    assert kept_in_fp32(half_network(weight=1)) == ["node_d", "node_embedding_nd", "node_logits_nc"]


def without_metadata(model: onnx.ModelProto) -> bool:
    graph = model.graph
    parts = (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer)
    return not any(part.metadata_props or part.doc_string for part in parts)


def test_save_strips_all_that_a_machine_wrote_and_equal_graphs_give_equal_bytes(tmp_path: Path) -> None:
    plain, marked = network(), network()
    graph = marked.graph
    for part in (marked, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.metadata_props.add(key="source", value="/home/somebody/train.py")
        part.doc_string = "/home/somebody/train.py"
    marked.producer_name, marked.producer_version = "pytorch", "9.9"
    save(plain, tmp_path / "plain.onnx")
    save(marked, tmp_path / "marked.onnx")
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "marked.onnx").read_bytes()
    assert b"somebody" not in (tmp_path / "marked.onnx").read_bytes()
    assert without_metadata(onnx.load(tmp_path / "marked.onnx"))


def renamed(old: str, new: str) -> onnx.ModelProto:
    model = network()
    for each in model.graph.node:
        each.output[:] = [new if name == old else name for name in each.output]
        each.input[:] = [new if name == old else name for name in each.input]
    for value in model.graph.output:
        value.name = new if value.name == old else value.name
    return model


def swapped() -> onnx.ModelProto:
    model = network()
    outputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs))
    return model


def fp16_output() -> onnx.ModelProto:
    model = network()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def broken() -> onnx.ModelProto:
    graph = network()
    graph.graph.node[2].input[0] = "nowhere"
    return graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(input_name="input"), r"\('input',\) where \('pixels_nchw',\)"),
        (lambda: renamed("logits_nc", "logits"), r"\('logits', 'embedding_nd'\) where \('logits_nc', 'embedding_nd'\)"),
        (swapped, r"\('embedding_nd', 'logits_nc'\) where \('logits_nc', 'embedding_nd'\)"),
        (lambda: network(batch=8), "pixels_nchw has a fixed batch"),
        (fp16_output, r"logits_nc is FLOAT16; inputs and outputs are FLOAT \(FP32\)"),
        (broken, "not a valid ONNX graph"),
        (lambda: model([], {}), "not a valid ONNX graph"),
    ],
    ids=["input name", "output name", "order", "fixed batch", "FP16 output", "loose input", "no nodes"],
)
def test_save_refuses_a_graph_that_is_not_as_every_graph_of_ours(
    make: Callable[[], onnx.ModelProto], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save(make(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
