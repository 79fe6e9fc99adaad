"""The search: its space, that a killed one goes on as an unbroken one, and that bad trials are cut short."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml

from slipway.contract import Manifest, Spec, SpecError
from slipway.contract.search_space import SearchSpace, changed
from slipway.training.search import hyperparameters as module
from slipway.training.search.hyperparameters import BEST, FINISHED, PLOT, TRIALS, PruningCallback, checkpoint_of, search
from tests.support.colour_training import small_spec, write_colours
from tests.support.processes import running_process
from tests.support.scripts import ROOT, run_script

SPACE = {
    "metric": "val_loss",
    "parameters": {
        "recipe.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "recipe.augment.crop_scale": {"choices": [[0.5, 1.0], [0.9, 1.0]]},
        "recipe.warmup_epochs": {"low": 0, "high": 1},
    },
}


def space(**changes: Any) -> SearchSpace:
    return SearchSpace.parse({**SPACE, **changes}, source="space.yaml")


class Figure:
    """In the place of training: a metric by epoch that depends on the learning rate alone."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.specs: list[Spec] = []
        self.fail_at = fail_at

    def __call__(self, spec: Spec, _: Path, *, callbacks: list[PruningCallback]) -> None:
        if len(self.specs) == self.fail_at:
            self.fail_at = None
            raise KeyboardInterrupt
        self.specs.append(spec)
        for epoch in range(6):
            loss = abs(spec.recipe.learning_rate - 0.003) + 1 / (epoch + 1)
            callbacks[0].on_validation_end(SimpleNamespace(callback_metrics={"val_loss": loss}), None)


def run(folder: Path, trainer: Figure, monkeypatch: pytest.MonkeyPatch, **options: Any) -> optuna.Study:
    monkeypatch.setattr(module, "train", trainer)
    spec = small_spec(folder / "data")
    return search(spec, space(pruning_trials=3), folder / "search", **{"trials": 8, "seed": 1, **options})


@pytest.mark.nightly
def test_a_search_that_was_killed_tries_what_an_unbroken_one_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    spec_of = small_spec  # the data are not read here, so both searches may name the same folder
    unbroken, killed = Figure(), Figure(fail_at=5)
    monkeypatch.setattr(sys.modules[__name__], "small_spec", lambda _: spec_of(tmp_path / "data"))
    run(tmp_path / "a", unbroken, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", killed, monkeypatch)
    study = run(tmp_path / "b", killed, monkeypatch)
    assert killed.specs == unbroken.specs
    assert len({spec.recipe.learning_rate for spec in killed.specs}) == 8
    assert len(study.get_trials(states=FINISHED)) == 8
    assert study.get_trials(states=(optuna.trial.TrialState.FAIL,))
    for name in (BEST, TRIALS):
        assert (tmp_path / "a/search" / name).read_bytes() == (tmp_path / "b/search" / name).read_bytes()


def test_the_best_spec_and_a_row_a_trial_are_written_and_bad_trials_are_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = run(tmp_path, (trainer := Figure()), monkeypatch)
    with (tmp_path / "search" / TRIALS).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    assert all(int(row["epochs"]) < 6 for row in rows if row["state"] == "pruned")
    best = Spec.read(tmp_path / "search" / BEST)
    rates = [
        spec.recipe.learning_rate for spec, row in zip(trainer.specs, rows, strict=True) if row["state"] == "complete"
    ]
    assert best.recipe.learning_rate == min(rates, key=lambda rate: abs(rate - 0.003))
    assert best in trainer.specs
    assert study.best_value == min(float(row["value"]) for row in rows if row["state"] == "complete")
    assert (tmp_path / "search" / PLOT).read_bytes().startswith(b"\x89PNG")


def test_another_search_in_the_folder_and_somebody_s_files_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, Figure(), monkeypatch, trials=1)
    with pytest.raises(SpecError, match="a search of another spec, space or seed; give another folder"):
        run(tmp_path, Figure(), monkeypatch, seed=2)
    with module._alone(tmp_path / "search"), pytest.raises(SpecError, match="another process is searching there"):
        run(tmp_path, Figure(), monkeypatch)
    (tmp_path / "mine/search").mkdir(parents=True)
    (tmp_path / "mine/search/mine.txt").write_text("mine")
    with pytest.raises(SpecError, match=r"not empty, and not written by this stage"):
        run(tmp_path / "mine", Figure(), monkeypatch)
    with pytest.raises(SpecError, match="trials: 0 given"):
        run(tmp_path, Figure(), monkeypatch, trials=0)


WRONG = {
    "a field that is none": ({"recipe.lr": {"low": 1, "high": 2}}, r"recipe\.lr: unknown key; the valid keys here are"),
    "a part that is none": ({"recipes.epochs": {"low": 1, "high": 2}}, r"; similar fields: recipe\.epochs"),
    "a value that is refused": ({"recipe.epochs": {"low": 0, "high": 2}}, r"recipe\.epochs: .*given 0"),
    "a choice that is refused": ({"backbone.name": {"choices": [""]}}, r"backbone\.name"),
    "one end": ({"recipe.epochs": {"low": 3}}, "give low and high, or choices"),
    "ends that are turned": ({"recipe.epochs": {"low": 3, "high": 2}}, "low 3 is above high 2"),
    "a logarithm of zero": ({"recipe.weight_decay": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
    "choices and ends": ({"recipe.epochs": {"low": 3, "choices": [1]}}, "give either choices, or low and high"),
    "no choice": ({"recipe.epochs": {"choices": []}}, "choices is empty"),
    "nothing": ({}, "at least 1 item"),
    "an unknown key": ({"recipe.epochs": {"low": 1, "high": 2, "base": 2}}, "base: unknown key"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_space_that_cannot_be_searched_is_an_error_before_any_trial(fault: str, tmp_path: Path) -> None:
    parameters, message = WRONG[fault]
    with pytest.raises(SpecError, match=message):
        space(parameters=parameters).check(small_spec(tmp_path), source="space.yaml")


def test_a_changed_spec_has_the_values_and_all_else_as_it_was(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    other = changed(spec, {"recipe.augment.crop_scale": [0.5, 0.9], "backbone.name": "resnet18"}, source="test")
    assert (other.recipe.augment.crop_scale, other.backbone.name) == ((0.5, 0.9), "resnet18")
    assert (
        changed(other, {"recipe.augment.crop_scale": [0.7, 1.0], "backbone.name": "resnet10t"}, source="test") == spec
    )


@pytest.mark.nightly
def test_the_script_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "data")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec(root, recipe={"epochs": 1}).model_dump(mode="json")))
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    arguments = ("training/search.py", "spec.yaml", "--space", "space.yaml", "--out", "search", "--trials", "3")
    with running_process(
        [sys.executable, str(ROOT / arguments[0]), *arguments[1:]], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 240
        while not (tmp_path / "search" / TRIALS).is_file() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = run_script(*arguments, cwd=tmp_path)
    assert "trial 1 of 3" not in done.stdout
    assert "trial 3 of 3" in done.stdout
    with (tmp_path / "search" / TRIALS).open() as file:
        assert len(list(csv.DictReader(file))) == 3
    for number in range(3):
        Manifest.open(checkpoint_of(tmp_path / "search", number), kind="checkpoint")
