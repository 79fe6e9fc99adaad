"""`Inspection`: what `inspection.json` holds."""

from typing import Literal

from slipway.contract.base import Contract
from slipway.contract.dataset import Split
from slipway.contract.decision import Task
from slipway.training.data.sources import Origin

Severity = Literal["error", "warning"]


class Problem(Contract):
    """Something to mend. With an error training stops before its first epoch."""

    severity: Severity
    what: str
    remedy: str
    examples: tuple[str, ...] = ()
    """The first files, classes or groups that it is about."""


class ClassCount(Contract):
    """Images of one class; a multi-label image counts in each of its classes."""

    label: str
    images: int
    by_split: dict[Split, int]
    """Empty where the images could not be split."""


class Unreadable(Contract):
    """A file that serving would refuse: by the guard, or by the decoder."""

    path: str
    reason: str


class Listed(Contract):
    """An image in a group of duplicates."""

    path: str
    labels: tuple[str, ...]
    split: Split | None


class Duplicates(Contract):
    """Images that are one: equal bytes, or nearly the same to look at."""

    images: tuple[Listed, ...]
    bits: int = 0
    """The smallest Hamming distance in the group, of 512; 0 for equal files."""

    @property
    def across_splits(self) -> bool:
        return len({image.split for image in self.images}) > 1

    @property
    def conflicting(self) -> bool:
        """They are labelled differently."""
        return len({image.labels for image in self.images}) > 1


class Spread(Contract):
    """Of a quantity over all readable images."""

    least: float
    median: float
    greatest: float


class Inspection(Contract):
    """Everything that was found."""

    name: str
    task: Task
    root: str
    origin: Origin
    splits: Literal["given", "drawn", "none"]
    """`none`: they could not be drawn, and a problem says why."""
    images: int
    images_by_split: dict[Split, int]
    without_label: int
    """Multi-label images with none of the labels."""
    classes: tuple[ClassCount, ...]
    imbalance_ratio: float | None
    """Images of the largest class over those of the smallest; None where a class has none."""
    width_px: Spread | None
    height_px: Spread | None
    aspect_ratio: Spread | None
    """Width over height, after EXIF orientation."""
    unreadable: tuple[Unreadable, ...]
    exact_duplicates: tuple[Duplicates, ...]
    near_duplicates: tuple[Duplicates, ...]
    near_duplicate_bits: int
    """The Hamming distance, of 512 bits, up to which two images are near duplicates."""
    too_plain_to_compare: int
    """Images with hardly any edge, among which near duplicates are not looked for."""
    problems: tuple[Problem, ...]
    """Errors first."""

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "warning"]
