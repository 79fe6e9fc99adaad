"""How a network learns, as a Lightning module."""

from typing import Any

import lightning
import torch

from slipway.contract import Spec
from slipway.contract.dataset import Dataset
from slipway.training.losses import loss_for
from slipway.training.metrics import metrics_for, update, validation_loss
from slipway.training.network import Network
from slipway.training.targets import targets_for


class Training(lightning.LightningModule):  # type: ignore[misc]
    """AdamW, linear warm-up, cosine decay, label smoothing; `val_loss` is what early stopping watches."""

    def __init__(self, network: Network, *, spec: Spec, dataset: Dataset, steps_per_epoch: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = spec.recipe
        self.steps_per_epoch = steps_per_epoch
        classes = len(dataset.labels)
        self.targets = targets_for(dataset, task=spec.task)
        self.loss = loss_for(
            spec.recipe.loss,
            task=spec.task,
            images=dataset.of("train"),
            classes=classes,
            label_smoothing=spec.recipe.label_smoothing,
        )
        self.metrics = metrics_for(spec.task, classes=classes)
        self.history: list[dict[str, float]] = []

    def _logits(self, batch: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        # Measured on 2 cores, resnet10t at 64 px: 4.1 ms an image against 7.7 in NCHW memory.
        pixels_nchw = batch[0]["pixels_nchw"].contiguous(memory_format=torch.channels_last)
        logits_nc: torch.Tensor = self.network(pixels_nchw)[0]
        return logits_nc

    def training_step(self, batch: list[dict[str, torch.Tensor]], _: int) -> torch.Tensor:
        logits_nc = self._logits(batch)
        loss: torch.Tensor = self.loss(logits_nc, self.targets(batch[0]))
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(logits_nc))
        return loss

    def validation_step(self, batch: list[dict[str, torch.Tensor]], _: int) -> None:
        logits_nc, target = self._logits(batch), self.targets(batch[0])
        size = len(logits_nc)
        update(self.metrics, logits_nc, target)
        self.log("val_loss", validation_loss(logits_nc, target), prog_bar=True, batch_size=size)
        self.log_dict(self.metrics, prog_bar=True, batch_size=size)

    def on_train_epoch_end(self) -> None:
        self.history.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        total = self.recipe.epochs * self.steps_per_epoch
        warmup = min(self.recipe.warmup_epochs * self.steps_per_epoch, total - 1)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(total - warmup, 1))
        schedules = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, max(warmup, 1)), cosine]
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedules, [max(warmup, 1)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
