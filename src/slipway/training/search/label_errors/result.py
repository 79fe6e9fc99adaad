"""`LabelErrors`: what `label_errors.json` holds."""

from typing import Literal

from slipway.contract.base import Contract
from slipway.contract.dataset import Split
from slipway.contract.decision import Task

Action = Literal["drop", "relabel", "keep"]


class Suspect(Contract):
    """An image whose label is probably wrong."""

    path: str
    given: tuple[str, ...]
    """One label for multi-class, any number for multi-label; so is `suggested`."""
    suggested: tuple[str, ...]
    quality: float
    """cleanlab's label quality score, 0 to 1; for multi-class the probability of the given label."""
    probability: dict[str, float]
    """Of each given and each suggested label, by a network that never saw the image."""
    split: Split
    fold: int

    @property
    def action(self) -> Action:
        """What becomes of it unless somebody decides otherwise.

        Held-out images stay: a test split without what the network gets wrong would flatter it.
        """
        return "drop" if self.split == "train" else "keep"


class LabelErrors(Contract):
    """Everything that was found."""

    name: str
    task: Task
    images: int
    folds: int
    seed: int
    top1_by_fold: tuple[float, ...]
    """Agreement with the given labels, by fold; empty for multi-label."""
    suspects: tuple[Suspect, ...]
    """The lowest quality first."""
    suspects_by_label: dict[str, int]
    """By given label; an image of several labels counts for each of them."""
    versions: dict[str, str]
