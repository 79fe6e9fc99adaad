"""Makes a batch's targets, class ids or a table of labels, from the one integer per image that DALI passes on."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task

TENSOR = {"multiclass": "class_id", "multilabel": "row"}
"""Name of the loader's tensor that holds the integer of each image, `INT64 [n]`."""


def reader_numbers(dataset: Dataset, images: Sequence[LabelledImage], *, task: Task) -> list[int]:
    """Return the integer of each image: its class id, or for multi-label its index in `dataset.images`."""
    if task == "multiclass":
        return [image.class_id for image in images]
    rows = {image.path: row for row, image in enumerate(dataset.images)}
    return [rows[image.path] for image in images]


class ClassTargets(nn.Module):
    """A batch's class ids, `INT64 [n]`."""

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return batch["class_id"]


class LabelTargets(nn.Module):
    """A batch's labels, `FLOAT [n, classes]`, 1 where an image has the label.

    Labels are kept as ids, padded to the most labels that an image has: with 10,000 classes a table of zeros and ones
    would be thousands of times as large.
    """

    class_ids_nk: torch.Tensor

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.classes = len(dataset.labels)
        most = max(len(image.class_ids) for image in dataset.images)
        padded = [(*image.class_ids, *[self.classes] * (most - len(image.class_ids))) for image in dataset.images]
        self.register_buffer("class_ids_nk", torch.tensor(padded, dtype=torch.int64), persistent=False)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        class_ids_nk = self.class_ids_nk[batch["row"]]
        target_nc = torch.zeros(len(class_ids_nk), self.classes + 1, device=class_ids_nk.device)
        return target_nc.scatter_(1, class_ids_nk, 1.0)[:, : self.classes]  # the last column is padding


def targets_for(dataset: Dataset, *, task: Task) -> ClassTargets | LabelTargets:
    return ClassTargets() if task == "multiclass" else LabelTargets(dataset)
