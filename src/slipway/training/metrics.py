"""What validation reports after each epoch, by torchmetrics. Names are those that early stopping may watch."""

import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from slipway.contract.decision import Task


def metrics_for(task: Task, *, classes: int) -> MetricCollection:
    """`val_top1` or `val_map`, and `val_macro_f1`; updated with `probabilities` and the targets."""
    if task == "multiclass":
        return MetricCollection(
            {"val_top1": MulticlassAccuracy(classes, average="micro"), "val_macro_f1": MulticlassF1Score(classes)}
        )
    return MetricCollection(
        {"val_map": MultilabelAveragePrecision(classes), "val_macro_f1": MultilabelF1Score(classes)},
        compute_groups=False,
    )


def update(metrics: MetricCollection, logits_nc: torch.Tensor, target: torch.Tensor) -> None:
    """Add a batch; `target` is class ids `[n]`, or zeros and ones `[n, classes]`.

    The sigmoid is taken here: torchmetrics takes it only where a number of the batch lies outside 0 to 1.
    """
    many = target.ndim == 2
    metrics.update(logits_nc.sigmoid() if many else logits_nc, target.long())


def validation_loss(logits_nc: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy without weights or smoothing, whatever is trained on: comparable between recipes."""
    if target.ndim == 2:
        return nn.functional.binary_cross_entropy_with_logits(logits_nc, target)
    return nn.functional.cross_entropy(logits_nc, target)
