"""Makes the validation metrics of each epoch, by torchmetrics. Early stopping may watch any of their names."""

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision, MultilabelF1Score

from slipway.contract.decision import Task


class MacroF1(Metric):  # type: ignore[misc]
    """torchmetrics' MulticlassF1Score from three numbers per class. The original makes a table of classes x classes for
    each batch: 800 MB for 10,000 classes. As there, a class that no image has and no answer names does not count."""

    right_c: torch.Tensor
    given_c: torch.Tensor
    images_c: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        for name in ("right_c", "given_c", "images_c"):
            self.add_state(name, torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits_nc: torch.Tensor, class_id_n: torch.Tensor) -> None:
        given_n = logits_nc.argmax(dim=1)
        once_n = torch.ones_like(class_id_n)
        self.right_c.index_add_(0, class_id_n, (given_n == class_id_n).long())
        self.given_c.index_add_(0, given_n, once_n)
        self.images_c.index_add_(0, class_id_n, once_n)

    def compute(self) -> torch.Tensor:
        total_c = self.given_c + self.images_c
        return (2 * self.right_c / total_c)[total_c > 0].mean()


def metrics_for(task: Task, *, classes: int) -> MetricCollection:
    """Make `val_top1` or `val_map`, and `val_macro_f1`; they are updated with `probabilities` and the targets."""
    if task == "multiclass":
        return MetricCollection(
            {"val_top1": MulticlassAccuracy(classes, average="micro"), "val_macro_f1": MacroF1(classes)}
        )
    return MetricCollection(
        {"val_map": MultilabelAveragePrecision(classes), "val_macro_f1": MultilabelF1Score(classes)},
        compute_groups=False,
    )


def update(metrics: MetricCollection, logits_nc: torch.Tensor, target: torch.Tensor) -> None:
    """Add a batch; `target` is class ids `[n]`, or zeros and ones `[n, classes]`.

    The sigmoid is applied here: torchmetrics applies it only if a number of the batch lies outside 0 to 1.
    """
    many = target.ndim == 2
    metrics.update(logits_nc.sigmoid() if many else logits_nc, target.long())


def validation_loss(logits_nc: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy without weights or smoothing, whatever the recipe's loss: comparable between recipes."""
    if target.ndim == 2:
        return nn.functional.binary_cross_entropy_with_logits(logits_nc, target)
    return nn.functional.cross_entropy(logits_nc, target)
