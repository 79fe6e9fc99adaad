"""Small networks by hand, and sealed bundles of them with calibration and validation images."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Bundle, Manifest, bundle_id
from slipway.contract.bundle import CalibrationList
from slipway.contract.dataset import Dataset
from slipway.onnx_graph import save
from slipway.system.files import sha256_bytes
from tests.support.colours import copy_colours
from tests.support.image_files import encode, photo

CHANNELS, CLASSES, IMAGES, VALIDATION, SIZE = 16, 3, 20, 30, 32


def network(*, batch: int | str = "n", input_name: str = "pixels_nchw") -> onnx.ModelProto:
    """Three convolutions, one of them beside a skip connection, the mean over the image, and a linear layer.

    pixels → first → ReLU ─┬→ second → ReLU → third → + → ReLU → mean (the embedding) → linear
                           └──────────────────────────┘
    """
    rng = np.random.default_rng(0)
    weights = {
        "first.weight": rng.normal(size=(CHANNELS, 3, 3, 3)) / 2,
        "first.bias": np.zeros(CHANNELS),
        "second.weight": rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 6,
        "third.weight": rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 6,
        "linear.weight": rng.normal(size=(CHANNELS, CLASSES)),
    }
    small = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        node("Conv", [input_name, "first.weight", "first.bias"], "a", name="first", strides=[2, 2], **small),
        node("Relu", ["a"], "b"),
        node("Conv", ["b", "second.weight"], "c", name="second", **small),
        node("Relu", ["c"], "d"),
        node("Conv", ["d", "third.weight"], "e", name="third", **small),
        node("Add", ["e", "b"], "f", name="skip"),
        node("Relu", ["f"], "g"),
        node("GlobalAveragePool", ["g"], "h"),
        node("Flatten", ["h"], "embedding_nd"),
        node("MatMul", ["embedding_nd", "linear.weight"], "logits_nc", name="linear"),
    ]
    return model(nodes, weights, batch=batch, input_name=input_name)


def network_without_weights() -> onnx.ModelProto:
    """The mean colour, twice: nothing in it can be INT8."""
    nodes = [
        node("GlobalAveragePool", ["pixels_nchw"], "mean"),
        node("Flatten", ["mean"], "embedding_nd"),
        node("Neg", ["embedding_nd"], "logits_nc"),
    ]
    return model(nodes, {}, embedding_size=3)


def node(op_type: str, inputs: list[str], output: str, *, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], name=name or f"node_{output}", **attributes)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    *,
    batch: int | str = "n",
    input_name: str = "pixels_nchw",
    embedding_size: int = CHANNELS,
) -> onnx.ModelProto:
    sizes = {"logits_nc": CLASSES, "embedding_nd": embedding_size}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size]) for name, size in sizes.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def weights_of(graph: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def set_weight(graph: onnx.ModelProto, name: str, array: NDArray[Any]) -> None:
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def bundle_of(
    graph: onnx.ModelProto | bytes, folder: Path, *, seed: int = 0, classes: int = CLASSES, **spec: Any
) -> Bundle:
    """A sealed bundle of `graph` with `IMAGES` calibration images of `classes` classes, and validation images.

    `spec` replaces keys of the spec; a loss of 100 points on validation is allowed unless it says otherwise.
    """
    spec = {"calibration": {"images": IMAGES}, "accuracy": {"max_loss_points": 100}, **spec}

    def fill(bundle: Path) -> None:
        if isinstance(graph, bytes):
            (bundle / "model.onnx").write_bytes(graph)
        else:
            save(graph, bundle / "model.onnx")
        shutil.rmtree(bundle / "calibration")
        images = write_images(bundle / "calibration", IMAGES, seed=100 * seed)
        entries = [
            {"file": name, "class_id": index % classes, "sha256": sha256_bytes(data)}
            for index, (name, data) in enumerate(images)
        ]
        CalibrationList.parse({"images": entries}, source="test").write(bundle / "calibration.json")
        write_dataset(folder.with_name(f"{folder.name}-data"), bundle)

    return copy_colours(folder, spec=spec, bundle=fill).bundle


def sealed(bundle: Bundle) -> Bundle:
    """The bundle with the id that its files make now."""
    (bundle.path / "manifest.json").unlink()
    Manifest.seal(bundle.path, kind="bundle", name=bundle.spec.name, bundle=bundle_id(bundle.path))
    return Bundle.open(bundle.path)


def write_dataset(root: Path, bundle: Path, *, split: str = "validation") -> None:
    """`dataset.json` of a bundle whose only images are `VALIDATION` ones of `split`, below `root`."""
    images = [
        {"path": name, "class_id": index % CLASSES, "sha256": sha256_bytes(data), "split": split}
        for index, (name, data) in enumerate(write_images(root, VALIDATION, seed=1000))
    ]
    labels = (bundle / "labels.txt").read_text().split()
    Dataset.parse({"root": str(root), "labels": labels, "images": images}, source="test").write(bundle / "dataset.json")


def write_images(folder: Path, count: int, *, seed: int) -> list[tuple[str, bytes]]:
    folder.mkdir(exist_ok=True)
    images = [(f"{index:05d}.png", encode(photo(40, 32, seed=seed + index), "PNG")) for index in range(count)]
    for name, data in images:
        (folder / name).write_bytes(data)
    return images


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def transformer() -> onnx.ModelProto:
    """A vision transformer of one block: patches by a convolution, attention with one head, an MLP, a linear layer."""
    rng, width = np.random.default_rng(0), 64
    sizes = dict.fromkeys(("query", "key", "value", "project"), (width, width))
    sizes |= {"up": (width, 4 * width), "down": (4 * width, width), "linear": (width, CLASSES)}
    weights = {name: rng.normal(size=size) / np.sqrt(size[0]) for name, size in sizes.items()}
    weights |= {"patches.weight": rng.normal(size=(width, 3, 8, 8)) / 8, "one": np.ones(width), "zero": np.zeros(width)}
    weights["eighth"] = np.array(1 / np.sqrt(width))
    nodes = [
        node("Conv", ["pixels_nchw", "patches.weight"], "grid", name="patches", kernel_shape=[8, 8], strides=[8, 8]),
        node("Constant", [], "shape", value_ints=[0, width, -1]),
        node("Reshape", ["grid", "shape"], "columns"),
        node("Transpose", ["columns"], "x", perm=[0, 2, 1]),
        node("LayerNormalization", ["x", "one", "zero"], "a"),
        *(node("MatMul", ["a", name], f"{name}_out", name=name) for name in ("query", "key", "value")),
        node("Transpose", ["key_out"], "key_t", perm=[0, 2, 1]),
        node("MatMul", ["query_out", "key_t"], "scores", name="scores"),
        node("Mul", ["scores", "eighth"], "scaled"),
        node("Softmax", ["scaled"], "shares"),
        node("MatMul", ["shares", "value_out"], "mixed", name="mixed"),
        node("MatMul", ["mixed", "project"], "attended", name="project"),
        node("Add", ["x", "attended"], "y"),
        node("LayerNormalization", ["y", "one", "zero"], "b"),
        node("MatMul", ["b", "up"], "up_out", name="up"),
        node("Relu", ["up_out"], "bent"),
        node("MatMul", ["bent", "down"], "down_out", name="down"),
        node("Add", ["y", "down_out"], "z"),
        node("Constant", [], "tokens", value_ints=[1]),
        node("ReduceMean", ["z", "tokens"], "embedding_nd", keepdims=0),
        node("MatMul", ["embedding_nd", "linear"], "logits_nc", name="linear"),
    ]
    return model(nodes, weights, embedding_size=width)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of `network`."""
    return bundle_of(network(), tmp_path_factory.mktemp("bundle") / "c")
