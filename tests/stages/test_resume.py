"""A run that was stopped, however hard, goes on where it was, and ends as one that never was."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from slipway.contract import Spec, SpecError, StorageError
from slipway.contract.recipe import Compute
from slipway.training import train
from slipway.training.learn import train as training
from slipway.training.learn.module import Training
from tests.support import small_training as fixtures
from tests.support.damage import Payload
from tests.support.small_training import make_spec

ROOT = Path(__file__).parents[2]
# Everything that has a state: phases, averaged weights, optimiser, schedule, dropout, augmentation, shuffling.
RECIPE: dict[str, Any] = {
    "epochs": 6,
    "freeze_epochs": 1,
    "unfreeze_epochs": 2,
    "backbone_multiplier": 0.5,
    "layer_decay": 0.9,
    "accumulate_batches": 2,
    "gradient_clip": 1.0,
    "ema_decay": 0.8,
    "head": {"dropout": 0.3},
    "rotate_degrees": 10,
    "monitor": "val_macro_f1",
}


single_thread = fixtures.single_thread
folder = fixtures.folder


@pytest.fixture(scope="module")
def spec(folder: Path) -> Spec:
    return make_spec(folder / "data", weights=folder / "weights.safetensors", **RECIPE)


def interrupt_at(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of `epoch`."""
    step = Training.training_step

    def interrupted(self: Training, batch: Any, index: int) -> Any:
        if self.current_epoch == epoch and index == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", interrupted)


@pytest.fixture
def unfinished(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The checkpoint folder of a run that was interrupted in its third epoch; it is not there, `.resume` is."""
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(spec, tmp_path / "run")
    assert sorted(os.listdir(tmp_path)) == ["run.resume"]
    assert "run.resume: 2 epochs; continue with --resume" in capsys.readouterr().err
    return tmp_path / "run"


@pytest.mark.nightly
@pytest.mark.parametrize(("ending", "ignored", "code"), [("SIGTERM", "", 143), ("SIGHUP", "SIGTERM", 129)])
def test_sigterm_and_sighup_end_a_run_as_ctrl_c_does_and_an_ignored_one_does_not(
    spec: Spec, tmp_path: Path, ending: str, ignored: str, code: int
) -> None:
    spec.write(tmp_path / "spec.json")
    command = ["env", *([f"--ignore-signal={ignored}"] if ignored else []), sys.executable]
    process = subprocess.Popen(
        [*command, str(ROOT / "training/train.py"), "spec.json", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not (tmp_path / "run.resume/last.ckpt").is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    for name in filter(None, (ignored, ending)):
        process.send_signal(signal.Signals[name])
        time.sleep(0.2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said[-2000:]
    assert "continue with --resume" in said
    assert (
        "KeyboardInterrupt" not in said.partition("Exception ignored")[0]
    )  # one in a destructor of DALI is told by Python
    assert sorted(os.listdir(tmp_path)) == ["run.resume", "spec.json"]


def test_a_killed_run_that_is_resumed_with_other_threads_ends_as_an_unbroken_one(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write(tmp_path / "spec.json")
    command = [sys.executable, str(ROOT / "training/train.py"), "spec.json", "--out", "killed"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    last = tmp_path / "killed.resume/last.ckpt"
    until = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGKILL, error[-2000:]
    assert not (tmp_path / "killed").exists()

    torch.set_num_threads(2)  # it began with one
    resumed = train(spec, tmp_path / "killed", resume=True)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    whole = train(spec, tmp_path / "whole")
    assert resumed.measured["resumed"]
    assert not whole.measured["resumed"]
    said = capsys.readouterr().out
    assert "threads: 1, as before the interruption, instead of 2" in said
    lines = said.rpartition("from epoch 0: training")[2]
    epochs = re.findall(r"^epoch (\d)/5: train_loss \S+, val_loss \S+, val_macro_f1 \S+, \d+ s$", lines, re.MULTILINE)
    assert epochs == list("012345"), "a line per epoch where the output is not a terminal"
    for name in ("history.json", "model.safetensors", "spec.json", "dataset.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(json.loads((tmp_path / "whole/history.json").read_text())) == spec.recipe.epochs
    assert sorted(os.listdir(tmp_path)) == ["killed", "spec.json", "whole"], "nothing else is left"


def test_a_run_that_had_stopped_early_does_not_go_on_when_it_is_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the weights are written: everything but the end had been done."""
    slow = {"epochs": 9, "freeze_epochs": 9, "learning_rate": 1e-12, "patience_epochs": 1}
    stopping = make_spec(folder / "data", weights=folder / "weights.safetensors", **slow)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_file", full)
        with pytest.raises(StorageError, match=r"No space left on device(.|\n)*run\.resume; continue with --resume"):
            train(stopping, tmp_path / "run")
    epochs = len(torch.load(tmp_path / "run.resume/last.ckpt", weights_only=True)["slipway"]["history"])
    assert epochs == 2
    assert train(stopping, tmp_path / "run", resume=True).measured["epochs"] == epochs


def test_an_unfinished_run_is_not_thrown_away_without_being_asked(unfinished: Path, spec: Spec) -> None:
    with pytest.raises(SpecError, match=r"run\.resume: an unfinished run; continue it \(--resume\), or remove"):
        train(spec, unfinished)
    same_device = spec.model_copy(update={"compute": Compute(accelerator="cpu", devices=1)})
    assert train(same_device, unfinished, resume=True).measured["epochs"] == spec.recipe.epochs
    assert sorted(os.listdir(unfinished.parent)) == ["run"]


def test_resume_begins_where_there_is_nothing_to_go_on_with(folder: Path, tmp_path: Path) -> None:
    manifest = train(make_spec(folder / "data", epochs=1), tmp_path / "run", resume=True)
    assert not manifest.measured["resumed"]


def test_another_spec_or_other_data_are_an_error_that_says_what_differs(
    unfinished: Path, spec: Spec, folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(folder / "data", tmp_path / "data"))
    moved = spec.model_copy(update={"data": spec.data.model_copy(update={"root": str(images)})})
    image = next((images / "0").iterdir())
    image.rename(images / "0/new.png")
    other = moved.model_copy(update={"recipe": spec.recipe.model_copy(update={"epochs": 7, "ema_decay": None})})
    with pytest.raises(SpecError) as caught:
        train(other, unfinished, resume=True)
    message = str(caught.value)
    assert "recipe.epochs: 6 in the unfinished run, 7 now" in message
    assert "recipe.ema_decay: 0.8 in the unfinished run, null now" in message
    assert f"1 images are missing, such as 0/{image.name}" in message
    assert "1 images are new, such as 0/new.png" in message
    assert (unfinished.with_name("run.resume") / "last.ckpt").is_file(), "it can still be resumed as it was"


@pytest.mark.parametrize("damage", ["pickle", "cut short"])
def test_a_checkpoint_that_was_tampered_with_is_refused_and_runs_nothing(
    damage: str, unfinished: Path, spec: Spec, tmp_path: Path
) -> None:
    last = unfinished.with_name("run.resume") / "last.ckpt"
    if damage == "pickle":
        torch.save({"slipway": Payload(tmp_path / "trace")}, last, pickle_module=pickle)
    else:
        last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(SpecError, match=r"last\.ckpt: cannot resume from it: .*; remove .*run\.resume to start anew"):
        train(spec, unfinished, resume=True)
    assert not (tmp_path / "trace").exists()
