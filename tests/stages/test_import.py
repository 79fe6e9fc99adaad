"""`slipway import` as a team calls it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Bundle
from slipway.system.files import sha256_file
from tests.support.imports import script, spec, write_images, written


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    return script(monkeypatch, tmp_path)


def colour_network(path: Path, classes: int = 3) -> None:
    """An ONNX file that knows colours: the logits are the channels' means, times 20."""
    head = torch.eye(3, classes).numpy() * 20
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head"], ["scores"]),
    ]
    pixels, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 32, 32]), ("scores", ["batch", classes]))
    )
    graph = helper.make_graph(nodes, "team", [pixels], [scores], [numpy_helper.from_array(head, "head")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_script_imports_an_onnx_file_and_says_what_it_found(
    images: Path, call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    arguments = ["spec.yaml", "--onnx", "team.onnx", "--labels", "labels.txt", "--json"]
    assert call(*arguments, "--out", "bundle") is None
    output = capsys.readouterr().out
    for part in ("logits_nc is the file's scores", "embedding_nd is the file's features", "top-1 100.00%", "next: "):
        assert part in output
    bundle = Bundle.open(tmp_path / "bundle")
    summary = json.loads(output.splitlines()[-1])
    assert summary["id"] == bundle.id
    assert summary["origin"] == bundle.manifest.measured["origin"] == "import onnx"
    assert bundle.manifest.inputs == {"team.onnx": sha256_file(tmp_path / "team.onnx")}
    assert bundle.spec.backbone.name == "team.onnx"
    assert call(*arguments, "--out", "again") is None
    assert Bundle.open(tmp_path / "again").id == bundle.id


def test_labels_in_another_order_are_seen_in_the_accuracy(
    images: Path, call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    assert call("spec.yaml", "--onnx", "team.onnx", "--labels-from-folders", "--out", "bundle") is None
    output = capsys.readouterr().out  # blue, green, red: only green is where the network has it
    assert "top-1 33.33%" in output
    assert "labels are in the order of the logits" in output


LABELS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "labels.txt: cannot be read: No such file"),
    "too few": (b"red\ngreen\n", "folders without a label: 'blue'"),
    "too many": (b"red\ngreen\nblue\npink\n", "labels without a folder: 'pink'"),
    "duplicated": (b"red\nred\nblue\n", "label 'red' stands for classes 0 and 1"),
    "an empty line": (b"red\n\nblue\n", "labels.txt: line 2 is blank; remove it"),
    "not text": (b"\xff\xfe", "labels.txt: not UTF-8 text"),
    "none": (b"", "labels.txt: line 1 is blank; remove it"),
}


@pytest.mark.parametrize("fault", LABELS)
def test_labels_that_cannot_be_are_named(fault: str, images: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    data, message = LABELS[fault]
    if data is not None:
        (tmp_path / "labels.txt").write_bytes(data)
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    assert message in call("spec.yaml", "--onnx", "team.onnx", "--labels", "labels.txt", "--out", "bundle")
    assert not (tmp_path / "bundle").exists()


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a tensor's name with weights": (
        {},
        ["--weights", "x.safetensors", "--logits", "y"],
        "--logits, --embedding and --no-embedding apply to an ONNX file; leave them out with --weights",
    ),
    "no such images": (
        {"data": {"root": "nowhere"}},
        ["--onnx", "team.onnx"],
        "nowhere: no such folder; data.root is one folder",
    ),
    "too few images to calibrate": (
        {"calibration": {"images": 500}},
        ["--onnx", "team.onnx"],
        "calibration.images: 500 given, but the train split can have at most 60 images",
    ),
    "too few images to calibrate in the train split": (
        {"calibration": {"images": 50}},
        ["--onnx", "team.onnx"],
        "calibration.images: 50 given, but the train split has only 42 images",
    ),
    "more logits than labels": (
        {},
        ["--onnx", "five.onnx"],
        "five.onnx: 5 logits but 3 labels; give one label per logit",
    ),
    "another input size": (
        {"preprocess": {"input_height": 64, "input_width": 32}},
        ["--onnx", "team.onnx"],
        "but preprocess makes 64x32 pixels",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_an_import_that_cannot_be_ends_with_one_message_and_leaves_nothing(
    fault: str, images: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    changes, options, message = REFUSED[fault]
    colour_network(tmp_path / "team.onnx")
    colour_network(tmp_path / "five.onnx", classes=5)
    written(tmp_path, spec(images, **changes))
    before = sorted(os.listdir(tmp_path))
    assert message in call("spec.yaml", *options, "--labels-from-folders", "--out", "bundle")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_of_somebody_is_not_replaced(images: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine.txt").write_text("mine")
    message = call("spec.yaml", "--onnx", "team.onnx", "--labels-from-folders", "--out", "bundle")
    assert "bundle: not empty, and not written by this stage" in message
    assert os.listdir(tmp_path / "bundle") == ["mine.txt"]


@pytest.mark.parametrize(
    "options",
    [
        ["--labels-from-folders"],
        ["--onnx", "a", "--weights", "b"],
        ["--onnx", "a", "--labels", "b", "--labels-from-folders"],
        ["--onnx", "a", "--outt", "b"],
    ],
)
def test_options_that_do_not_go_together_end_with_2(options: list[str], call: Callable[..., Any]) -> None:
    assert call("spec.yaml", *options, "--out", "bundle") == 2


def test_help_needs_no_library(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for option in ("--onnx", "--weights", "--labels", "--preprocess-from-timm", "--logits", "--embedding", "--json"):
        assert option in text
