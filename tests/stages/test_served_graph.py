"""The graph that an engine serves: a network behind the normalisation of UINT8 pixels, with the network's answers."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.contract import Preprocess
from slipway.engines import quantize
from slipway.engines.compile import build_engine
from slipway.engines.graph import served_graph
from slipway.engines.typed_graph import TypedGraph
from slipway.onnx_graph import SERVED_INPUT, check, load, output_sizes
from slipway.steps.engine_openvino import Engine
from slipway.steps.normalize import Float, Pixels, normalize
from tests.support.coloured_runs import coloured_run
from tests.support.quantizable import SIZE, bundle_of, network

PREPROCESS = Preprocess(input_height=SIZE, input_width=SIZE)
PIXELS = np.random.default_rng(0).integers(0, 256, (300, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network in FP32, and its INT8 graph with FP16 elsewhere."""
    folder = tmp_path_factory.mktemp("graphs")
    bundle = bundle_of(network(), folder / "bundle")
    quantize(bundle, folder / "int8")
    return {"fp32": bundle.path / "model.onnx", "int8": folder / "int8/model.onnx"}


@pytest.fixture(scope="module")
def served(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    for precision, graph in graphs.items():
        (folder / precision).write_bytes(served_graph(graph, PREPROCESS))
    return {precision: folder / precision for precision in graphs}


def logits(graph: Path, pixels: Float | Pixels) -> Float:
    """The logits of all images, asked one by one, then in batches of 7."""
    engine = Engine(graph, arithmetic="f32", threads=1)
    sizes = (1, 7)
    runs = [engine.run(pixels[at : at + size])[0] for size in sizes for at in range(0, len(pixels), size)]
    return np.concatenate(runs)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.0), ("fp32", 1e-6)])
def test_openvino_answers_what_it_answers_to_normalised_pixels(
    precision: str, most: float, graphs: dict[str, Path], served: dict[str, Path]
) -> None:
    """Where an FP32 layer follows, OpenVINO makes one multiply-add of Sub and Mul, and rounds once instead of twice."""
    expected = logits(graphs[precision], normalize(PIXELS, PREPROCESS.model_dump()))
    found = logits(served[precision], PIXELS)
    assert np.abs(found - expected).max() <= most * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_node_by_node_the_answers_are_equal_bit_for_bit(
    precision: str, graphs: dict[str, Path], served: dict[str, Path]
) -> None:
    expected = TypedGraph(graphs[precision], threads=1).run(normalize(PIXELS[:9], PREPROCESS.model_dump()))[0]
    np.testing.assert_array_equal(TypedGraph(served[precision], threads=1).run(PIXELS[:9])[0], expected)


def test_it_takes_bytes_gives_what_the_network_gives_and_is_the_same_file_each_time(
    graphs: dict[str, Path], served: dict[str, Path]
) -> None:
    model = onnx.load(served["int8"])
    check(model, input_name=SERVED_INPUT)
    (given,) = model.graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [0, SIZE, SIZE, 3]
    assert output_sizes(served["int8"]) == output_sizes(graphs["int8"])
    assert served_graph(graphs["int8"], PREPROCESS) == served["int8"].read_bytes()


def test_another_mean_is_another_graph(graphs: dict[str, Path], served: dict[str, Path]) -> None:
    other = PREPROCESS.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    assert served_graph(graphs["fp32"], other) != served["fp32"].read_bytes()


def test_no_graph_is_normalised_twice_or_quantised_behind_bytes(served: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"\('pixels_nhwc_u8',\) where \('pixels_nchw',\)"):
        load(served["fp32"])


def test_an_engine_records_its_input_and_keeps_the_graph_that_it_was_evaluated_with(tmp_path: Path) -> None:
    bundle = coloured_run(tmp_path, images=30, precisions=["fp32"])
    engine = build_engine(bundle, tmp_path, tmp_path, target="openvino", precision="fp32", reference=None)
    assert engine.settings.input == SERVED_INPUT
    graph = (engine.path / "model.onnx").read_bytes()
    assert graph == served_graph(bundle.path / "model.onnx", bundle.preprocess)
