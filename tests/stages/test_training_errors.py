"""What scripts say when their input is wrong: one message with the fault and what to do; nothing is written."""

import importlib.util
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants as hub
from PIL import Image

from slipway.contract import Bundle, CompileError, DataError, ExportError, SlipwayError, Spec, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.spec import Calibration
from slipway.engines import evaluate
from slipway.evaluation.predict import Predictions
from slipway.system.files import complete_folder, sha256_bytes
from slipway.system.process import run
from slipway.training import train
from slipway.training.bundle.calibration import write_calibration
from slipway.training.bundle.write import compare_outputs
from slipway.training.learn import train as training
from tests.support.bad_images import corpus
from tests.support.colours import COLOURS, contents, copy_colours
from tests.support.image_files import encode

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "training/make_digits.py",
    "training/make_parity.py",
    "training/make_pages.py",
    "inspect",
    "training/augmentations.py",
    "training/train.py",
    "training/export.py",
    "training/label_errors.py",
    "training/search.py",
    "import_bundle",
    "build/quantize.py",
    "build/compile.py",
)
PNG = encode(Image.new("RGB", (2, 2)), "PNG")
HALF_A_PNG = next(case.data for case in corpus() if case.name == "PNG with half of its data")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """`call("training/train.py", …)` runs that verb in `tmp_path` and returns its exit code, or its last message."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, *arguments: Path | str) -> Any:
        module = importlib.import_module(f"slipway.cli.{Path(script).stem}")
        monkeypatch.setattr(sys, "argv", [Path(script).name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(module.main, module.parser())
        return ended.value.code

    return call


def spec(folder: Path, **changes: Any) -> dict[str, Any]:
    """A spec that can be trained, on two classes of 20 images each, with these keys changed."""
    for class_id, label in enumerate(("cat", "dog")):
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        for number in range(20):
            (folder / "images" / label / f"{number}.png").write_bytes(PNG + bytes([class_id, number]))
    return {
        "name": "pets",
        "data": {"root": str(folder / "images")},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": "resnet10t", "pretrained": False},
        "recipe": {"epochs": 1, "batch_size": 8},
        **changes,
    }


def before(text: str) -> Callable[[Path], str]:
    return lambda folder: text + yaml.safe_dump(spec(folder))


WRONG_SPECS: dict[str, tuple[Callable[[Path], str | bytes], list[str]]] = {
    "an unknown key": (
        before("backbones: {}\n"),
        ["backbones: unknown key; the valid keys here are", "backbone, calibration"],
    ),
    "an unknown nested key": (
        lambda folder: yaml.safe_dump(spec(folder, recipe={"epoch": 1})),
        ["recipe.epoch: unknown key", "epochs"],
    ),
    "a wrong value": (
        lambda folder: yaml.safe_dump(spec(folder, recipe={"epochs": 0})),
        ["recipe.epochs", "greater than or equal to 1", "given 0"],
    ),
    "a missing key": (lambda _: "name: pets\n", ["data: required", "preprocess: required", "backbone: required"]),
    "an empty file": (lambda _: "", ["spec.yaml", "(the whole file)"]),
    "no YAML": (lambda _: "name: [pets\n", ["spec.yaml: not valid YAML", "line 2"]),
    "no text": (lambda _: b"\xff\xfe\x00", ["spec.yaml: not UTF-8 text"]),
    "a name that cannot be a folder": (
        lambda folder: yaml.safe_dump(spec(folder, name="../pets")),
        ["name", "use 1 to 63 characters of a-z", "'../pets'"],
    ),
    "no such images": (
        lambda folder: yaml.safe_dump(spec(folder, data={"root": "nowhere"})),
        ["nowhere: no such folder; data.root is one folder with a sub-folder of images per class"],
    ),
    "no such table": (
        lambda folder: yaml.safe_dump(spec(folder, data={"root": str(folder / "images"), "csv": "none.csv"})),
        ["none.csv: cannot be read: No such file or directory; data.csv must name a CSV file"],
    ),
    "groups without a table": (
        lambda folder: yaml.safe_dump(spec(folder, data={"root": str(folder / "images"), "group_column": "camera"})),
        ["data: group_column is a column of a CSV file; give data.csv too"],
    ),
    "an unknown backbone": (
        lambda folder: yaml.safe_dump(spec(folder, backbone={"name": "resnet999", "pretrained": False})),
        ["backbone.name: timm has no 'resnet999'; similar names: ", "resnet"],
    ),
    "a backbone like no other": (
        lambda folder: yaml.safe_dump(spec(folder, backbone={"name": "zzz", "pretrained": False})),
        ["backbone.name: timm has no 'zzz'; similar names: none"],
    ),
    "more than one label an image, and class folders": (
        lambda folder: yaml.safe_dump(spec(folder, task="multilabel")),
        ["data: class folders give one label per image; task multilabel needs data.csv with `labels`"],
    ),
    "weights and balance": (
        lambda folder: yaml.safe_dump(
            spec(folder, recipe={"balance": "equal", "loss": {"class_weights": "inverse_frequency"}})
        ),
        ["recipe.loss.class_weights and recipe.balance correct the same imbalance twice"],
    ),
    "a batch larger than the train split": (
        lambda folder: yaml.safe_dump(spec(folder, recipe={"batch_size": 64})),
        ["recipe.batch_size: 64 given, but only 28 train images"],
    ),
}


@pytest.mark.parametrize("fault", WRONG_SPECS)
def test_train_names_what_is_wrong_with_a_spec(fault: str, call: Callable[..., Any], tmp_path: Path) -> None:
    make, parts = WRONG_SPECS[fault]
    text = make(tmp_path)
    (tmp_path / "spec.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = call("training/train.py", "spec.yaml", "--out", "runs/checkpoint")
    assert message.startswith("train.py: ")
    assert all(part in message for part in parts), message
    assert not list(tmp_path.glob("runs/*")), "nothing is left, not even a hidden folder"


def test_a_check_says_what_it_does_before_it_takes_long(
    call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec(tmp_path, recipe={"batch_size": 64})))
    assert "only 28 train images" in call("training/train.py", "spec.yaml", "--out", "runs/checkpoint", "--check")
    assert capsys.readouterr().out == "spec.yaml: checking images and weights\n"


def test_train_says_so_when_there_is_no_spec(call: Callable[..., Any]) -> None:
    assert call("training/train.py", "none.yaml", "--out", "checkpoint") == (
        "train.py: none.yaml: cannot be read: No such file or directory"
    )


def test_pretrained_weights_that_cannot_be_had_say_what_to_do(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    text = yaml.safe_dump(spec(tmp_path, backbone={"name": "resnet10t", "pretrained": True}))
    (tmp_path / "spec.yaml").write_text(text)
    message = call("training/train.py", "spec.yaml", "--out", "checkpoint")
    assert "backbone.pretrained: the weights of resnet10t cannot be loaded" in message
    assert "connect to the model hub, or download the weights elsewhere and name the safetensors" in message
    assert message.endswith("or start from random weights by backbone: {name: resnet10t, pretrained: false}")


def test_a_file_in_the_place_of_the_result_is_left_as_it_is(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec(tmp_path)))
    (tmp_path / "checkpoint").write_text("mine")
    message = call("training/train.py", "spec.yaml", "--out", "checkpoint")
    assert "checkpoint: a file or link, where a folder is to be written" in message
    assert (tmp_path / "checkpoint").read_text() == "mine"


def test_ctrl_c_while_training_leaves_nothing_and_ends_with_130(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_fit", interrupted)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec(tmp_path)))
    assert call("training/train.py", "spec.yaml", "--out", "runs/checkpoint") == 130
    assert "interrupted; nothing half-written is left" in capsys.readouterr().err
    assert not list((tmp_path / "runs").iterdir())


def test_a_backbone_that_does_not_take_the_input_size_is_an_error_that_names_it(tmp_path: Path) -> None:
    wrong = spec(tmp_path, backbone={"name": "nest_tiny", "pretrained": False})
    wrong["preprocess"] = {"input_height": 33, "input_width": 33}
    with pytest.raises(SpecError, match=r"preprocess: backbone nest_tiny .* 33x33 pixels"):
        train(Spec.parse(wrong, source="test"), tmp_path / "checkpoint")


def test_an_image_that_only_the_decoder_refuses_is_an_error_that_names_it(tmp_path: Path) -> None:
    good = Spec.parse(spec(tmp_path), source="test")
    for number in range(20):
        (tmp_path / f"images/cat/half {number}.png").write_bytes(HALF_A_PNG + bytes([number]))
    with pytest.raises(DataError, match=r"20 images that the decoder refuses; (?s:.)*cat/half \d+\.png"):
        train(good, tmp_path / "checkpoint")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"], "not even the logs of an epoch"


def test_the_gpu_decoder_is_refused_where_nothing_decodes_with_it(tmp_path: Path) -> None:
    wrong = spec(tmp_path)
    preprocess = wrong["preprocess"] | {"decoder": "mixed"}
    with pytest.raises(SpecError, match=r"preprocess\.decoder: mixed .* is cpu"):
        train(Spec.parse(wrong | {"preprocess": preprocess}, source="test"), tmp_path / "checkpoint")


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("place", ["data", "recipe"])
def test_a_seed_that_no_library_takes_is_an_error(seed: int, place: str, tmp_path: Path) -> None:
    wrong = spec(tmp_path)
    with pytest.raises(SlipwayError, match=rf"{place}\.seed"):
        train(Spec.parse(wrong | {place: wrong[place] | {"seed": seed}}, source="test"), tmp_path / "checkpoint")


def test_a_network_that_answers_nan_is_not_exported() -> None:
    images = [LabelledImage(path="0.png", class_id=0, sha256="", split="test")]
    answers = Predictions(images, np.full((1, 3), np.nan, np.float32), np.zeros((1, 3), np.float32))
    with pytest.raises(ExportError):
        compare_outputs(answers, answers)


def test_an_engine_that_answers_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [LabelledImage(path=f"{class_id}.png", class_id=class_id, sha256="", split="test") for class_id in (0, 1)]
    logits_nc = np.array([[1, 2, 3], [np.nan, 0, 0]], np.float32)
    predictions = Predictions(images, logits_nc, np.zeros((2, 3), np.float32))
    monkeypatch.setattr(evaluate, "run_split", lambda *_, **__: predictions)
    bundle = Bundle.open(COLOURS / "bundle")
    with pytest.raises(CompileError, match="1 of 2 validation images"):
        evaluate.evaluate_engine(bundle, None, name="fp16", arithmetic="f32", decoder="cpu", reference=None)


def test_any_file_name_can_be_in_the_calibration_sample(tmp_path: Path) -> None:
    (tmp_path / "0.jpg~").write_bytes(PNG)
    images = (LabelledImage(path="0.jpg~", class_id=0, sha256=sha256_bytes(PNG), split="train"),)
    dataset = Dataset(root=str(tmp_path), labels=("a", "b"), images=images)
    (tmp_path / "bundle").mkdir()
    write_calibration(tmp_path / "bundle", dataset, Calibration(images=1))


def test_a_folder_that_slipway_did_not_write_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with suppress(SlipwayError), complete_folder(tmp_path / "photos", kind="checkpoint"):
        pass
    assert contents(tmp_path) == {"photos/cat.jpg": b"cat"}


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("training/export.py", ["none", "--out", "out"], "none: no manifest.json here; give the folder of a complete"),
        ("training/export.py", [COLOURS / "bundle", "--out", "out"], "of kind bundle, but kind checkpoint is needed"),
        (
            "build/quantize.py",
            ["none", "--out", "out"],
            "none: no manifest.json here; give the folder of a complete bundle",
        ),
        ("build/quantize.py", [COLOURS / "engine", "--out", "out"], "of kind engine, but kind bundle is needed"),
        ("build/compile.py", ["none", "--graphs", "graphs", "--out", "out"], "none: no manifest.json here"),
    ],
)
def test_the_next_stages_name_a_folder_that_is_not_what_they_need(
    script: str, arguments: list[Path | str], message: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    assert message in call(script, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["build/quantize.py", "build/compile.py"])
def test_a_changed_bundle_is_refused_by_name(script: str, call: Callable[..., Any], tmp_path: Path) -> None:
    bundle = copy_colours(tmp_path / "c").bundle.path
    decision = json.loads((bundle / "decision.json").read_text())
    (bundle / "decision.json").write_text(json.dumps(decision))
    left = contents(tmp_path)
    graphs = ["--graphs", "graphs"] if "compile" in script else []
    assert "bundle/decision.json: changed since this bundle was made" in call(script, bundle, *graphs, "--out", "out")
    assert contents(tmp_path) == left


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(script: str, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(script, "--help") == 0
    text = capsys.readouterr().out
    assert "--out" in text
    assert "--json" in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_ends_with_2(script: str, call: Callable[..., Any]) -> None:
    assert call(script, "--outt", "x") == 2
