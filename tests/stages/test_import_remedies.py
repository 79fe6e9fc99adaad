"""Every remedy that a message of the import gives, followed: the import that was refused ends in a bundle then.

A message that says "export it otherwise" is followed with the file as that export would write it.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from slipway.contract import Bundle
from tests.support.imports import script, spec, write_images, written
from tests.support.team_graphs import LINEAR, POOL, node, value
from tests.support.team_graphs import team as small_team

SIZE = (32, 32)
HEAD, BIAS = 20 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
LABELS = "red\ngreen\nblue\n"
PROBABILITIES = [value("probabilities", "batch", 3)]
Model = Callable[[], onnx.ModelProto]


def team(
    *, weights: dict[str, np.ndarray] | None = None, shape: tuple[Any, ...] = ("batch", 3, *SIZE), **options: Any
) -> onnx.ModelProto:
    """`team_graphs.team` for 32 px and three classes: the head tells colours."""
    pixels, scores = [value("images", *shape)], [value("scores", "batch", 3)]
    options = {"inputs": pixels, "outputs": scores, **options}
    return small_team(weights={"weight": HEAD, "bias": BIAS, **(weights or {})}, **options)


def with_softmax() -> onnx.ModelProto:
    return team(nodes=[*POOL, *LINEAR, node("Softmax", ["scores"], ["probabilities"])], outputs=PROBABILITIES)


def without_a_product() -> onnx.ModelProto:
    return team(nodes=[*POOL, node("Mul", ["features", "twenty"], ["scores"])], weights={"twenty": np.float32(20)})


def five_labels() -> str:
    return LABELS + "pink\ngrey\n"


def with_more_logits(count: int) -> onnx.ModelProto:
    """`count` further classes that never win."""
    weights = {
        "weight": np.hstack([HEAD, np.zeros((3, count), np.float32)]),
        "bias": np.append(BIAS, np.full(count, -1000, np.float32)),
    }
    return team(weights=weights, outputs=[value("scores", "batch", 3 + count)])


def five_logits() -> onnx.ModelProto:
    return with_more_logits(2)


def one_probability() -> onnx.ModelProto:
    """Of blue, as a sigmoid."""
    return team(
        nodes=[*POOL, *LINEAR, node("Sigmoid", ["scores"], ["probability"])],
        weights={"weight": HEAD[:, 2:] - HEAD[:, :1], "bias": BIAS[:1]},
        outputs=[value("probability", "batch", 1)],
    )


def without_green(folder: Path) -> None:
    shutil.rmtree(folder / "images/green", ignore_errors=True)


def external(folder: Path, model: onnx.ModelProto) -> None:
    onnx.save(model, folder / "team.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)


@dataclass(frozen=True)
class Attempt:
    """One call of the script."""

    model: Model | None = team
    options: tuple[str, ...] = ()
    labels: str | None = LABELS
    spec: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda _: None
    """After the file was written."""


REMEDIES: dict[str, tuple[Attempt, str, Attempt]] = {
    "ends in a softmax: the tensor before it": (
        Attempt(with_softmax),
        "name its input (--logits scores)",
        Attempt(with_softmax, ("--logits", "scores")),
    ),
    "ends in a softmax: export without it": (Attempt(with_softmax), "or export the network without it", Attempt()),
    "several outputs: name the logits": (
        Attempt(lambda: team(outputs=[value("features", "batch", 3), value("scores", "batch", 3)])),
        "name the logits: --logits NAME",
        Attempt(
            lambda: team(outputs=[value("features", "batch", 3), value("scores", "batch", 3)]), ("--logits", "scores")
        ),
    ),
    "no such tensor: one of the outputs": (
        Attempt(options=("--logits", "logits")),
        "its outputs are scores",
        Attempt(options=("--logits", "scores")),
    ),
    "no embedding found: name one": (
        Attempt(without_a_product),
        "--embedding NAME",
        Attempt(without_a_product, ("--embedding", "features")),
    ),
    "no embedding found: go without": (
        Attempt(without_a_product),
        "import it without one: --no-embedding",
        Attempt(without_a_product, ("--no-embedding",)),
    ),
    "no vector: name another embedding": (
        Attempt(options=("--embedding", "images")),
        "the graph computes no such tensor",
        Attempt(options=("--embedding", "pooled")),
    ),
    "unknown by distance and no embedding: another score": (
        Attempt(options=("--no-embedding",), spec={"decision": {"unknown": {"score": "embedding", "coverage": 0.6}}}),
        "write auto, energy or max_probability, or leave out --no-embedding",
        Attempt(options=("--no-embedding",), spec={"decision": {"unknown": {"score": "auto", "coverage": 0.6}}}),
    ),
    "unknown by distance and no embedding: with it": (
        Attempt(options=("--no-embedding",), spec={"decision": {"unknown": {"score": "embedding", "coverage": 0.6}}}),
        "or leave out --no-embedding",
        Attempt(spec={"decision": {"unknown": {"score": "embedding", "coverage": 0.6}}}),
    ),
    "two inputs": (
        Attempt(lambda: team(inputs=[value("images", "batch", 3, *SIZE), value("mask", "batch", 1)])),
        "export it with one, FP32 [n, 3, H, W]",
        Attempt(),
    ),
    "half precision pixels": (
        Attempt(
            lambda: team(
                nodes=[node("Cast", ["half"], ["images"], to=TensorProto.FLOAT), *POOL, *LINEAR],
                inputs=[value("half", "batch", 3, *SIZE, dtype=TensorProto.FLOAT16)],
            )
        ),
        "export it with an FP32 input",
        Attempt(),
    ),
    "half precision weights": (
        Attempt(lambda: team(weights={"weight16": HEAD.astype(np.float16)})),
        "give the FP32 graph: Slipway makes FP16 from it",
        Attempt(),
    ),
    "channels last": (
        Attempt(
            lambda: team(
                nodes=[node("Transpose", ["nhwc"], ["images"], perm=[0, 3, 1, 2]), *POOL, *LINEAR],
                inputs=[value("nhwc", "batch", *SIZE, 3)],
            )
        ),
        "export it with [n, 3, H, W] (tf2onnx: --inputs-as-nchw)",
        Attempt(),
    ),
    "NaN in the weights": (
        Attempt(lambda: team(weights={"bias": BIAS * np.float32("nan")})),
        "export from a checkpoint without NaN",
        Attempt(),
    ),
    "operators of somebody": (
        Attempt(
            lambda: team(
                nodes=[*POOL, LINEAR[0], node("Plus", ["product", "bias"], ["scores"], domain="my.ops")],
                domains=("my.ops",),
            )
        ),
        "export with ONNX's own operators only",
        Attempt(),
    ),
    "a sigmoid with two labels: the tensor before it": (
        Attempt(one_probability, labels="red\nblue\n", prepare=without_green),
        "name its input (--logits scores)",
        Attempt(one_probability, ("--logits", "scores"), labels="red\nblue\n", prepare=without_green),
    ),
    "a fixed batch": (
        Attempt(lambda: team(shape=(4, 3, *SIZE), outputs=[value("scores", 4, 3)])),
        "export it with a dynamic one",
        Attempt(),
    ),
    "another input size: change preprocess": (
        Attempt(lambda: team(shape=("batch", 3, 24, 40))),
        "change preprocess.input_height and input_width",
        Attempt(lambda: team(shape=("batch", 3, 24, 40)), spec={"preprocess": {"input_height": 24, "input_width": 40}}),
    ),
    "another input size: export for that size": (
        Attempt(lambda: team(shape=("batch", 3, 24, 40))),
        "or export it for that size",
        Attempt(),
    ),
    "labels without a folder: remove them": (Attempt(labels=five_labels()), "rename, add or remove some", Attempt()),
    "labels without a folder: allow it": (
        Attempt(five_logits, labels=five_labels()),
        "import without images of the others: --allow-empty-classes",
        Attempt(five_logits, ("--allow-empty-classes",), labels=five_labels()),
    ),
    "more logits than labels: a label for each": (
        Attempt(five_logits),
        "give one label per logit, in the logits' order",
        Attempt(five_logits, ("--allow-empty-classes",), labels=five_labels()),
    ),
    "too few images to calibrate": (
        Attempt(spec={"calibration": {"images": 500}}),
        "write a smaller number into the spec",
        Attempt(spec={"calibration": {"images": 42}}),
    ),
    "no labels: --labels-from-folders": (
        Attempt(labels=None),
        "or --labels-from-folders",
        Attempt(
            lambda: team(weights={"weight": HEAD[:, ::-1].copy()}), labels=None, options=("--labels-from-folders",)
        ),
    ),
    "no preprocess: as timm's": (
        Attempt(lambda: team(shape=("batch", 3, 160, 160)), spec={"preprocess": None, "backbone": None}),
        "or --preprocess-from-timm MODEL",
        Attempt(
            lambda: team(shape=("batch", 3, 160, 160)),
            ("--preprocess-from-timm", "test_vit"),
            spec={"preprocess": None, "backbone": None},
        ),
    ),
    "preprocess twice: leave out one": (
        Attempt(options=("--preprocess-from-timm", "test_vit")),
        "leave one out",
        Attempt(),
    ),
    "data outside of the folder": (
        Attempt(
            prepare=lambda folder: (external(folder, team()), (folder / "weights.bin").rename(folder / "elsewhere.bin"))
        ),
        "put the data files themselves, not links, next to the ONNX file",
        Attempt(prepare=lambda folder: external(folder, team())),
    ),
    "cut short": (
        Attempt(prepare=lambda folder: (folder / "team.onnx").write_bytes(team().SerializeToString()[:200])),
        "copy or export it again",
        Attempt(),
    ),
    "an image that cannot be read: remove it": (
        Attempt(prepare=lambda folder: (folder / "images/red/broken.png").write_bytes(b"no image")),
        "repair or remove them",
        Attempt(prepare=lambda folder: (folder / "images/red/broken.png").unlink()),
    ),
    "the same image in two classes": (
        Attempt(
            prepare=lambda folder: (folder / "images/red/copy.png").write_bytes(
                (folder / "images/blue/1.png").read_bytes()
            )
        ),
        "the same image in two classes; keep the right one",
        Attempt(prepare=lambda folder: (folder / "images/red/copy.png").unlink()),
    ),
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return write_images(tmp_path / "images")


def attempt(this: Attempt, call: Callable[..., Any], folder: Path, images: Path) -> Any:
    written(folder, spec(images, **this.spec))
    if this.model is not None:
        onnx.save(this.model(), folder / "team.onnx")
    this.prepare(folder)
    options = list(this.options)
    if this.labels is not None:
        (folder / "labels.txt").write_text(this.labels)
        options += ["--labels", "labels.txt"]
    return call("spec.yaml", "--onnx", "team.onnx", *options, "--out", "bundle")


@pytest.mark.parametrize("case", REMEDIES)
def test_a_remedy_that_is_followed_ends_in_a_bundle(
    case: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, remedy, followed = REMEDIES[case]
    call = script(monkeypatch, tmp_path)
    assert remedy in str(attempt(refused, call, tmp_path, images))
    assert not (tmp_path / "bundle").exists()
    assert attempt(followed, call, tmp_path, images) is None
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.measured["top1"] == 1.0


def test_classes_without_images_are_counted_and_enter_no_mean(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ImageNet's thousand logits and images of three classes."""
    labels = [*LABELS.split(), *(f"class {number}" for number in range(997))]
    thousand = Attempt(
        lambda: with_more_logits(997),
        ("--allow-empty-classes",),
        labels="\n".join(labels) + "\n",
        spec={"decision": {"unknown": {"score": "auto", "coverage": 0.6}}},
    )
    assert attempt(thousand, script(monkeypatch, tmp_path), tmp_path, images) is None
    assert "997 classes have no image: their accuracy is unknown" in capsys.readouterr().out
    measured = Bundle.open(tmp_path / "bundle").manifest.measured
    assert (measured["classes_without_images"], measured["top1"], measured["macro_f1"]) == (997, 1.0, 1.0)


def test_a_folder_without_a_label_is_refused_even_where_classes_may_be_empty(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Attempt(options=("--allow-empty-classes",), labels="red\ngreen\nviolet\n")
    message = str(attempt(two, script(monkeypatch, tmp_path), tmp_path, images))
    assert "folders without a label: 'blue'" in message
    assert "--allow-empty-classes" not in message
