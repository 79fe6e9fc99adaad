"""Defines `Inspection`, the content of `inspection.json`."""

from typing import Literal

from slipway.contract.dataset import Split
from slipway.contract.decision import Task
from slipway.contract.typed_file import Contract
from slipway.training.data.sources import SourceKind

Severity = Literal["error", "warning"]


class Problem(Contract):
    """A fault of the data. An error stops training before its first epoch."""

    severity: Severity
    what: str
    remedy: str
    examples: tuple[str, ...] = ()
    """The first files, classes or groups with the problem."""


class ClassCount(Contract):
    """Images of one class; a multi-label image counts in each of its classes."""

    label: str
    images: int
    by_split: dict[Split, int]
    """Number of images in each split; empty where the images could not be split."""


class Unreadable(Contract):
    """A file that the guard or the decoder of serving would refuse."""

    path: str
    reason: str


class Listed(Contract):
    """An image in a group of duplicates."""

    path: str
    labels: tuple[str, ...]
    split: Split | None


class Duplicates(Contract):
    """Images with equal bytes, or that look nearly the same."""

    images: tuple[Listed, ...]
    bits: int = 0
    """Smallest Hamming distance in the group, of 512 bits; 0 for equal files."""

    @property
    def across_splits(self) -> bool:
        return len({image.split for image in self.images}) > 1

    @property
    def conflicting(self) -> bool:
        """Whether the images have different labels."""
        return len({image.labels for image in self.images}) > 1


class Spread(Contract):
    """The spread of a quantity over all readable images."""

    least: float
    median: float
    greatest: float


class Inspection(Contract):
    """Everything that an inspection found."""

    name: str
    task: Task
    root: str
    origin: SourceKind
    splits: Literal["given", "drawn", "none"]
    """Source of the splits; `none` where they could not be drawn, for which a problem gives the reason."""
    images: int
    images_by_split: dict[Split, int]
    without_label: int
    """Number of multi-label images with none of the labels."""
    classes: tuple[ClassCount, ...]
    imbalance_ratio: float | None
    """Number of images of the largest class divided by that of the smallest; None where a class has none."""
    width_px: Spread | None
    height_px: Spread | None
    aspect_ratio: Spread | None
    """Width divided by height, after EXIF orientation."""
    unreadable: tuple[Unreadable, ...]
    exact_duplicates: tuple[Duplicates, ...]
    near_duplicates: tuple[Duplicates, ...]
    near_duplicate_bits: int
    """Largest Hamming distance, of 512 bits, of two near duplicates."""
    too_plain_to_compare: int
    """Number of images with hardly any edges; no near duplicates are sought among them."""
    problems: tuple[Problem, ...]
    """All problems, errors first."""

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "warning"]
