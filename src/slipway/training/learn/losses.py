"""Makes a recipe's loss: cross-entropy or focal, for one label per image or many, with weights for rare classes."""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from slipway.contract.dataset import LabelledImage
from slipway.contract.decision import Task
from slipway.contract.recipe import Loss
from slipway.training.learn.weighting import class_weights

GAMMA = 2.0


def loss_for(
    loss: Loss, *, task: Task, images: Sequence[LabelledImage], classes: int, label_smoothing: float
) -> nn.Module:
    """Make the loss of `logits_nc` and targets, a mean over the batch (multi-label: over the batch and the labels).

    Targets are class ids `INT64 [n]` or shares `FLOAT [n, classes]`, as Mixup makes them; for multi-label only
    `FLOAT [n, classes]`, 1 where the image has the label.

    Args:
        images: the train split, from which class weights are computed.
    """
    weights_c = None
    if loss.class_weights != "none":
        weights_c = torch.from_numpy(class_weights(loss, task=task, images=images, classes=classes)).float()
    if task == "multilabel":
        return LabelLoss(loss, weights_c, label_smoothing=label_smoothing)
    if loss.kind == "cross_entropy":
        return nn.CrossEntropyLoss(weight=weights_c, label_smoothing=label_smoothing)
    return SoftmaxFocalLoss(_gamma(loss), weights_c, label_smoothing=label_smoothing)


def _gamma(loss: Loss) -> float:
    return GAMMA if loss.gamma is None else loss.gamma


class SoftmaxFocalLoss(nn.Module):
    """-sum over classes of w_c t_c (1 - p_c)^gamma log p_c, the mean over the batch.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, with the softmax's p and shares t (one-hot,
    smoothed or mixed) instead of one class. With gamma 0 it is cross-entropy.
    """

    weights_c: torch.Tensor | None

    def __init__(self, gamma: float, weights_c: torch.Tensor | None, *, label_smoothing: float) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("weights_c", weights_c, persistent=False)

    def forward(self, logits_nc: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        classes = logits_nc.shape[1]
        share_nc = target if target.ndim == 2 else nn.functional.one_hot(target, classes).to(logits_nc.dtype)
        share_nc = share_nc * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.weights_c is not None:
            share_nc = share_nc * self.weights_c
        log_nc = logits_nc.log_softmax(dim=1)
        rest_nc = (1 - log_nc.exp()).clamp(min=1e-6)  # the slope of x^gamma at 0 is infinite for gamma under 1
        return -(share_nc * rest_nc**self.gamma * log_nc).sum(dim=1).mean()


class LabelLoss(nn.Module):
    """Binary cross-entropy or `torchvision.ops.sigmoid_focal_loss`, the mean over images and labels.

    Smoothing by s moves both targets s/2 towards each other. A present label has the weight `weights_c`, or alpha
    against 1 - alpha for an absent one.
    """

    weights_c: torch.Tensor | None

    def __init__(self, loss: Loss, weights_c: torch.Tensor | None, *, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.focal = loss.kind == "focal"
        self.gamma, self.alpha = _gamma(loss), -1 if loss.alpha is None else loss.alpha  # -1: none
        self.register_buffer("weights_c", weights_c, persistent=False)

    def forward(self, logits_nc: torch.Tensor, target_nc: torch.Tensor) -> torch.Tensor:
        smooth_nc = target_nc * (1 - self.label_smoothing) + self.label_smoothing / 2
        if not self.focal:
            loss_nc = nn.functional.binary_cross_entropy_with_logits(logits_nc, smooth_nc, reduction="none")
        else:
            loss_nc = sigmoid_focal_loss(logits_nc, smooth_nc, gamma=self.gamma, alpha=self.alpha)
        if self.weights_c is not None:
            loss_nc = loss_nc * (1 + (self.weights_c - 1) * target_nc)
        return loss_nc.mean()
