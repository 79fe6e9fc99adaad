"""How a network learns, as a Lightning module."""

import math
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from slipway.contract.recipe import Recipe
from slipway.training.mixing import Mixing
from slipway.training.network import Network
from slipway.training.optimizers import configure, rates
from slipway.training.phases import Phases
from slipway.training.resume import random_states, set_random_states

TIE = 1e-4  # of macro-F1: far less than one image of a class is worth


class Training(lightning.LightningModule):  # type: ignore[misc]
    """The recipe's phases, optimiser and schedule. `best_…` is what early stopping and the best checkpoint watch."""

    def __init__(self, network: Network, *, recipe: Recipe, classes: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.phases = Phases(network, recipe)
        self.phase = ""
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        mix = recipe.augment.mix
        self.mixing = None if mix is None else Mixing(mix, classes=classes)
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.macro_f1 = MulticlassF1Score(classes, average="macro")
        self.history: list[dict[str, Any]] = []
        self._restored: dict[str, Any] | None = None

    def _logits(self, pixels_nchw: torch.Tensor) -> torch.Tensor:
        # Measured on 2 cores, resnet10t at 64 px: 4.1 ms an image against 7.7 in NCHW memory.
        logits_nc: torch.Tensor = self.network(pixels_nchw.contiguous(memory_format=torch.channels_last))[0]
        return logits_nc

    def on_train_start(self) -> None:
        if self._restored is not None:
            set_random_states(self._restored)

    def on_train_epoch_start(self) -> None:
        phase = self.phases.enter(self.current_epoch)
        if phase != self.phase:
            print(f"epoch {self.current_epoch} on: {phase} learning", flush=True)
        self.phase = phase

    def training_step(self, batch: list[dict[str, torch.Tensor]], number: int) -> torch.Tensor:
        pixels_nchw, target = batch[0]["pixels_nchw"], batch[0]["class_id"]
        if self.mixing is not None:
            draw = (self.recipe.seed, self.current_epoch, number, self.global_rank)
            pixels_nchw, target = self.mixing(pixels_nchw, target, draw=draw)
        loss: torch.Tensor = self.loss(self._logits(pixels_nchw), target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(target), sync_dist=True)
        return loss

    def validation_step(self, batch: list[dict[str, torch.Tensor]], _: int) -> None:
        logits_nc, class_id = self._logits(batch[0]["pixels_nchw"]).float(), batch[0]["class_id"]
        size = len(class_id)
        self.accuracy(logits_nc, class_id)
        self.macro_f1(logits_nc, class_id)
        loss = nn.functional.cross_entropy(logits_nc, class_id)
        self.log("val_loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val_top1", self.accuracy, prog_bar=True, batch_size=size)
        self.log("val_macro_f1", self.macro_f1, batch_size=size)

    def on_validation_epoch_end(self) -> None:
        """Small validation splits are full of equal macro-F1: there the loss tells which epoch is better."""
        values = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.log("best_val_loss", values["val_loss"])
        self.log("best_val_macro_f1", values["val_macro_f1"] + TIE * math.exp(-values["val_loss"]))

    def on_train_epoch_end(self) -> None:
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        row = {name: value for name, value in metrics.items() if not name.startswith("best_")}
        optimizer = self.optimizers(use_pl_optimizer=False)
        self.history.append({"epoch": self.current_epoch, "phase": self.phase, **rates(optimizer), **row})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["slipway"] = {
            "history": self.history,
            "random_states": random_states(),
            "stopped": bool(self.trainer.should_stop),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["slipway"]
        self.history = list(state["history"])
        self._restored = state["random_states"]
        self.trainer.should_stop = state["stopped"]  # killed after early stopping, and before the end

    def configure_optimizers(self) -> Any:
        steps = math.ceil(self.steps_per_epoch / self.recipe.accumulate_batches)
        return configure(self.network, self.recipe, steps_per_epoch=steps)
