"""Makes the callbacks of training: early stopping, the best and the last checkpoint, averaged weights."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from slipway.contract.recipe import Recipe
from slipway.training.learn.phases import first_whole_epoch
from slipway.training.learn.resume import UnfinishedRun

MODES = {"val_loss": "min", "val_macro_f1": "max"}


def make(recipe: Recipe, unfinished: UnfinishedRun) -> list[Any]:
    """Make Lightning's callbacks for a recipe; the checkpoints are written to `unfinished`."""
    monitor = {"monitor": f"best_{recipe.monitor}", "mode": MODES[recipe.monitor]}
    # Under the same name each time: a run that was killed between the two files writes the same ones again.
    files: dict[str, Any] = {"dirpath": unfinished.folder, "enable_version_counter": False}
    best = ModelCheckpoint(filename=unfinished.best.stem, save_weights_only=True, **files, **monitor)
    last = ModelCheckpoint(filename=unfinished.last.stem, save_on_train_epoch_end=True, **files)
    stop = _StopAfterLastPhase(recipe, patience=recipe.patience_epochs, **monitor)
    average = [] if recipe.ema_decay is None else [WeightAveraging(multi_avg_fn=moving_average(recipe.ema_decay))]
    ignored = [_KeepIgnored()] if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN else []
    return [stop, *average, best, last, *ignored]


class _KeepIgnored(Callback):  # type: ignore[misc]
    """Keeps an ignored SIGTERM ignored, although Lightning installs its own handler."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class WholeCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """Writes a checkpoint beside the old one, then replaces that in one step.

    Lightning writes to the folder for temporary files; a move from there to another disk overwrites the old checkpoint
    bit by bit, and a full disk or a kill leaves half of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        part = Path(path).with_name(f".{Path(path).name}.part")
        try:
            super().save_checkpoint(checkpoint, part, storage_options)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


class _StopAfterLastPhase(EarlyStopping):  # type: ignore[misc]
    """Stops early only in the last phase: a head that stopped improving must not keep the backbone from training."""

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        super().__init__(**options)
        self._first_epoch = first_whole_epoch(recipe)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch >= self._first_epoch:
            super().on_validation_end(trainer, pl_module)


def moving_average(decay: float) -> Any:
    """Make an exponential moving average whose decay grows to `decay`: (1 + n) / (10 + n) at update n.

    TensorFlow's `ExponentialMovingAverage` does the same. A constant decay would average a run of some hundred steps
    with its start.
    """

    average: Callable[[float], Any] = get_ema_multi_avg_fn

    def update(averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], updates: Any) -> None:
        done = float(updates)
        average(min(decay, (1 + done) / (10 + done)))(list(averaged), list(current), updates)

    return update
