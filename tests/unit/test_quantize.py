"""Explicit INT8 of a small convolutional network, and what every ONNX file of ours is."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_images import encode, photo
from colours import contents, copy_colours
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Bundle, Manifest, ManifestError, QuantizeError
from slipway.contract.bundle import CalibrationList
from slipway.contract.files import sha256_bytes, sha256_file
from slipway.engines import quantize
from slipway.evaluation.predict import pixel_batches
from slipway.onnx_graph import output_sizes, save
from slipway.steps.engine_openvino import Engine

CHANNELS, CLASSES, IMAGES = 16, 3, 20


def network(*, batch: int | str = "n", input_name: str = "pixels_nchw") -> onnx.ModelProto:
    """Two convolutions, the mean over the image (the embedding), and a linear layer."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(CHANNELS, 3, 3, 3)),
        "second": rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 10,
        "linear": rng.normal(size=(CHANNELS, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", [input_name, "first"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["embedding_nd"]),
        helper.make_node("MatMul", ["embedding_nd", "linear"], ["logits_nc"]),
    ]
    return model(nodes, weights, batch=batch, input_name=input_name)


def network_without_weights() -> onnx.ModelProto:
    """The mean colour, twice: nothing in it can be INT8."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels_nchw"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["embedding_nd"]),
        helper.make_node("Neg", ["embedding_nd"], ["logits_nc"]),
    ]
    return model(nodes, {}, embedding_size=3)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    batch: int | str = "n",
    input_name: str = "pixels_nchw",
    embedding_size: int = CHANNELS,
) -> onnx.ModelProto:
    sizes = {"logits_nc": CLASSES, "embedding_nd": embedding_size}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size]) for name, size in sizes.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def bundle_of(
    graph: onnx.ModelProto, folder: Path, *, asked: int = IMAGES, method: str = "entropy", seed: int = 0
) -> Bundle:
    """A sealed bundle of `graph` with `IMAGES` calibration images."""

    def fill(bundle: Path) -> None:
        save(graph, bundle / "model.onnx")
        shutil.rmtree(bundle / "calibration")
        (bundle / "calibration").mkdir()
        entries = []
        for index in range(IMAGES):
            data = encode(photo(40, 32, seed=100 * seed + index), "PNG")
            (bundle / "calibration" / f"{index:05d}.png").write_bytes(data)
            entries.append({"file": f"{index:05d}.png", "class_id": index % CLASSES, "sha256": sha256_bytes(data)})
        CalibrationList.parse({"images": entries}, source="test").write(bundle / "calibration.json")

    return copy_colours(folder, spec={"calibration": {"images": asked, "method": method}}, bundle=fill).bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(network(), tmp_path_factory.mktemp("bundle") / "c")


@pytest.fixture(scope="module")
def int8(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "graph"
    quantize(bundle, out)
    return out


def test_convolutions_take_input_and_weights_from_q_dq_nodes(int8: Path) -> None:
    graph = onnx.load(int8 / "model.onnx").graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    assert {makers[name] for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}


def test_the_graph_keeps_its_tensors_its_dynamic_batch_and_a_recent_opset(int8: Path) -> None:
    model = onnx.load(int8 / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"pixels_nchw": ["n", 3, 32, 32], "logits_nc": ["n", CLASSES], "embedding_nd": ["n", CHANNELS]}
    assert all(opset.version >= 18 for opset in model.opset_import if opset.domain == "")
    assert {opset.domain for opset in model.opset_import} == {""}
    assert output_sizes(int8 / "model.onnx") == {"logits_nc": CLASSES, "embedding_nd": CHANNELS}


@pytest.mark.parametrize("batch", [1, 5])
def test_int8_answers_like_fp32_and_not_exactly_so(bundle: Bundle, int8: Path, batch: int) -> None:
    pixels_nchw = next(
        pixel_batches(
            iter(bundle.load_calibration()), preprocess=bundle.preprocess, batch_size=batch, total=IMAGES, what=""
        )
    )
    exact, rounded = (
        Engine(folder / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw) for folder in (bundle.path, int8)
    )
    for expected, found in zip(exact, rounded, strict=True):
        assert found.shape == expected.shape
        difference = np.abs(found - expected).max()
        assert 0 < difference < 0.1 * np.abs(expected).max()


def test_the_folder_holds_one_graph_and_a_manifest_of_count_and_method(bundle: Bundle, int8: Path) -> None:
    assert sorted(contents(int8)) == ["manifest.json", "model.onnx"]
    manifest = Manifest.open(int8, kind="graph")
    assert manifest.bundle == bundle.id
    assert manifest.inputs == {"bundle": sha256_file(bundle.path / "manifest.json")}
    assert manifest.measured == {
        "calibration_images": IMAGES,
        "calibration_method": "entropy",
        "int8_layers": 2,
        "layers": 3,
    }
    assert {"nvidia-modelopt", "onnxruntime"} <= manifest.versions.keys()


def test_the_same_bundle_gives_the_same_bytes(int8: Path, tmp_path: Path) -> None:
    quantize(bundle_of(network(), tmp_path / "c"), tmp_path / "again")
    assert (tmp_path / "again/model.onnx").read_bytes() == (int8 / "model.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "c"]


def test_the_bundle_stays_as_it_was(tmp_path: Path) -> None:
    """ModelOpt writes inferred shapes into the file that it is given."""
    bundle = bundle_of(network(), tmp_path / "c")
    before = contents(bundle.path)
    quantize(bundle, tmp_path / "graph")
    assert {name for name, data in contents(bundle.path).items() if before.get(name) != data} == set()


@pytest.mark.parametrize("options", [{"seed": 1}, {"method": "max"}], ids=str)
def test_other_images_or_another_method_give_other_ranges(
    options: dict[str, object], int8: Path, tmp_path: Path
) -> None:
    manifest = quantize(bundle_of(network(), tmp_path / "c", **options), tmp_path / "graph")
    assert manifest.measured["calibration_method"] == options.get("method", "entropy")
    assert (tmp_path / "graph/model.onnx").read_bytes() != (int8 / "model.onnx").read_bytes()


def test_every_calibration_image_is_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def stop(_graph: Path, _out: Path, pixels_nchw: np.ndarray, **_: object) -> None:
        seen.append(pixels_nchw)
        raise QuantizeError("seen enough")

    monkeypatch.setattr(sys.modules[quantize.__module__], "_run_modelopt", stop)
    with pytest.raises(QuantizeError, match="seen enough"):
        quantize(bundle, tmp_path / "graph")
    assert [len(pixels_nchw) for pixels_nchw in seen] == [IMAGES]


def test_fewer_calibration_images_than_asked_for_is_an_error(tmp_path: Path) -> None:
    bundle = bundle_of(network(), tmp_path / "c", asked=IMAGES + 1)
    with pytest.raises(QuantizeError, match=rf"{IMAGES} calibration images, and the spec asks for {IMAGES + 1}"):
        quantize(bundle, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_a_graph_that_cannot_be_int8_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    bundle = bundle_of(network_without_weights(), tmp_path / "c")
    with pytest.raises(QuantizeError, match=r"model\.onnx"):
        quantize(bundle, tmp_path / "graph")
    assert os.listdir(tmp_path) == ["c"]


def test_a_graph_whose_only_convolution_modelopt_leaves_out_is_an_error(tmp_path: Path) -> None:
    bundle = copy_colours(tmp_path / "c").bundle
    with pytest.raises(QuantizeError, match="INT8 was asked for, and none of 2 layers is quantised"):
        quantize(bundle, tmp_path / "graph")


def test_a_changed_calibration_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = bundle_of(network(), tmp_path / "c").path
    image = folder / "calibration/00003.png"
    image.write_bytes(encode(photo(40, 32, seed=99), "PNG"))
    with pytest.raises(ManifestError, match=r"calibration/00003\.png: changed since"):
        Bundle.open(folder)


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
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]
    for value in model.graph.output:
        value.name = new if value.name == old else value.name
    return model


def swapped() -> onnx.ModelProto:
    model = network()
    outputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(input_name="input"), r"\('input',\) where \('pixels_nchw',\)"),
        (lambda: renamed("logits_nc", "logits"), r"\('logits', 'embedding_nd'\) where \('logits_nc', 'embedding_nd'\)"),
        (swapped, r"\('embedding_nd', 'logits_nc'\) where \('logits_nc', 'embedding_nd'\)"),
        (lambda: network(batch=8), "pixels_nchw has a fixed batch"),
    ],
    ids=["another input name", "another output name", "outputs in another order", "a fixed batch"],
)
def test_save_refuses_a_graph_that_is_not_as_every_graph_of_ours(
    make: Callable[[], onnx.ModelProto], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save(make(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
