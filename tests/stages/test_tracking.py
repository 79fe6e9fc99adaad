"""Where a run's metrics go: TensorBoard's files, a CSV, nothing, or an error that says what to install."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slipway.contract import Manifest, SpecError
from slipway.contract.recipe import Tracking
from slipway.training import train
from slipway.training.learn.tracking import hyper_parameters, logger_for
from tests.support.colour_training import small_spec, write_colours


def test_tensorboard_gets_every_epoch_beside_the_checkpoint_that_stays_whole(tmp_path: Path) -> None:
    spec = small_spec(write_colours(tmp_path / "data"))
    train(spec, tmp_path / "run/checkpoint")
    Manifest.open(tmp_path / "run/checkpoint", kind="checkpoint")
    events = EventAccumulator(str(tmp_path / "run/checkpoint.logs/version_0"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"train_loss", "val_loss", "val_macro_f1"} <= names
    assert any(name.startswith("lr-") for name in names)
    assert len(events.Scalars("val_loss")) == spec.recipe.epochs
    assert "recipe.learning_rate" in (tmp_path / "run/checkpoint.logs/version_0/hparams.yaml").read_text()


def test_csv_takes_its_options_and_none_writes_nothing(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "data")
    options = {"logger": "csv", "options": {"save_dir": str(tmp_path / "elsewhere"), "name": "pets"}}
    train(small_spec(root, tracking=options), tmp_path / "run/checkpoint")
    with (tmp_path / "elsewhere/pets/version_0/metrics.csv").open() as file:
        losses = [row["val_loss"] for row in csv.DictReader(file) if row["val_loss"]]
    assert len(losses) == 2
    train(small_spec(root, tracking={"logger": "none"}), tmp_path / "run/checkpoint")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow"), ("wandb", "wandb"), ("comet", "comet-ml")])
def test_a_logger_that_is_not_installed_fails_before_the_data_are_read(name: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    spec = small_spec(tmp_path / "no such data", tracking={"logger": name})
    with pytest.raises(SpecError, match=rf"tracking\.logger: {name} is not installed: pip install {package}; or write"):
        train(spec, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_options_that_a_logger_does_not_take_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"csv rejects them: .*tracking_uri.*; give what CSVLogger takes"):
        logger_for(Tracking(logger="csv", options={"tracking_uri": "x"}), tmp_path / "checkpoint")


@pytest.mark.parametrize("logger", ["tensorbord", "lightning.pytorch.loggers.CSVLogger", None])
def test_an_unknown_logger_is_an_error_that_lists_the_valid_ones(logger: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"tracking\.logger: .*'tensorboard', 'csv', 'mlflow'"):
        small_spec(tmp_path, tracking={"logger": logger})


def test_hyper_parameters_are_plain_values_by_dotted_name(tmp_path: Path) -> None:
    found = hyper_parameters(small_spec(tmp_path))
    assert found["recipe.learning_rate"] == 0.003
    assert found["backbone.name"] == "resnet10t"
    assert all(isinstance(value, (int, float, str, bool)) for value in found.values())


class Break(Callback):
    """After the first epoch a file stands in the place of the logs: from there on no metric can be written."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        if self.logs.is_dir():
            shutil.rmtree(self.logs)
            self.logs.touch()


def test_a_logger_that_fails_in_the_middle_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = small_spec(write_colours(tmp_path / "data"), tracking={"logger": "csv"})
    logs = tmp_path / "run/checkpoint.logs"
    manifest = train(spec, tmp_path / "run/checkpoint", callbacks=[Break(logs)])
    assert logs.is_file(), "it was in the way"
    assert manifest is not None
    assert manifest.measured["epochs"] == spec.recipe.epochs
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tracking.logger")]
    assert len(said) == 1
    assert "csv failed; training continues without it: " in said[0]


def test_a_logger_that_cannot_even_begin_is_an_error_before_any_epoch(tmp_path: Path) -> None:
    spec = small_spec(
        write_colours(tmp_path / "data"), tracking={"logger": "tensorboard", "options": {"save_dir": "/dev/null"}}
    )
    with pytest.raises(SpecError, match=r"tracking\.logger: tensorboard cannot write: .*; fix that, or write none"):
        train(spec, tmp_path / "run/checkpoint")
    assert not list((tmp_path / "run").iterdir())
