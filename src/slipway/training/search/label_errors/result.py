"""Defines `LabelErrors`, the content of `label_errors.json`."""

from typing import Literal

from slipway.contract.base import Contract
from slipway.contract.dataset import Split
from slipway.contract.decision import Task

Action = Literal["drop", "relabel", "keep"]


class Suspect(Contract):
    """An image whose label is probably wrong."""

    path: str
    given: tuple[str, ...]
    """The given labels: one for multi-class, any number for multi-label, as in `suggested`."""
    suggested: tuple[str, ...]
    quality: float
    """cleanlab's label quality score, 0 to 1; for multi-class, the probability of the given label."""
    probability: dict[str, float]
    """Probability of each given and each suggested label, from a network that never saw the image."""
    split: Split
    fold: int

    @property
    def action(self) -> Action:
        """Return the default action for the image.

        Held-out images stay: a test split without the network's mistakes would flatter it.
        """
        return "drop" if self.split == "train" else "keep"


class LabelErrors(Contract):
    """Everything that a search for label errors found."""

    name: str
    task: Task
    images: int
    folds: int
    seed: int
    top1_by_fold: tuple[float, ...]
    """Agreement with the given labels in each fold; empty for multi-label."""
    suspects: tuple[Suspect, ...]
    """All suspects, the lowest quality first."""
    suspects_by_label: dict[str, int]
    """Number of suspects of each given label; an image with several labels counts for each of them."""
    versions: dict[str, str]
