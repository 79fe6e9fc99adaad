"""Coordinates of the page's drawings. Every number in them stands beside them as text."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slipway.contract.evidence.evaluation import Answered, Coverage, Reliability

SIDE = 100.0
SHADES = 5
MATRIX_CLASSES = 150
Cells = Sequence[tuple[int, int, int]]
"""Of a confusion matrix: class, answer, images; those without an image are left out."""


@dataclass(frozen=True)
class Axis:
    """From `low` to 1, in `SIDE` units of a drawing."""

    low: float

    @classmethod
    def down_to(cls, values: Iterable[float]) -> "Axis":
        """The shortest axis to 1 that holds the values and is 1, 2, 5, 10, 20, 50 or 100 % long."""
        least = min([1.0, *values])
        return cls(next(low for low in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5, 0.0) if low <= least + 1e-12))

    def at(self, value: float) -> float:
        share = (value - self.low) / (1 - self.low)
        return round(SIDE * min(max(share, 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        values = [self.low + (1 - self.low) * step / 4 for step in range(5)]
        return [(self.at(value), f"{100 * value:g} %") for value in values]


@dataclass(frozen=True)
class Point:
    """Of a reliability diagram: a dot with a whisker, from the bottom left."""

    x: float
    y: float
    low: float
    high: float
    radius: float


@dataclass(frozen=True)
class Diagram:
    """Accuracy over confidence; on the diagonal they are equal."""

    axis: Axis
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Curve:
    """Accuracy over coverage, and where the threshold of `unknown` puts the classifier on it."""

    axis: Axis
    path: str
    served: tuple[float, float] | None


@dataclass(frozen=True)
class Matrix:
    """Cells of a large confusion matrix, by shade from the lightest on, in class units."""

    classes: int
    left_out: int
    paths: tuple[tuple[float, str], ...]
    """Opacity, and one path of unit squares."""


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another one."""

    truth: str
    label: str
    images: int
    share: float
    """Of the images of the true class."""


def diagrams(before: Reliability, after: Reliability) -> tuple[Diagram, Diagram]:
    """Both on one axis."""
    bins = (*before.bins, *after.bins)
    axis = Axis.down_to([value for item in bins for value in (item.confidence, item.accuracy)])
    most = max(item.images for item in bins)
    first, second = (
        tuple(
            Point(
                x=axis.at(item.confidence),
                y=axis.at(item.accuracy),
                low=axis.at(item.accuracy_interval[0]),
                high=axis.at(item.accuracy_interval[1]),
                radius=round(1.2 + 1.8 * math.sqrt(item.images / most), 2),
            )
            for item in reliability.bins
        )
        for reliability in (before, after)
    )
    return Diagram(axis, first), Diagram(axis, second)


def curve(coverage: Coverage, served: Answered | None) -> Curve:
    """Coverage on a whole axis, accuracy on one that shows something."""
    axis = Axis.down_to(accuracy for _, accuracy in coverage.curve)
    points = [f"{SIDE * share:.2f} {SIDE - axis.at(accuracy):.2f}" for share, accuracy in coverage.curve]
    at = None
    if served is not None and served.accuracy is not None:
        at = round(SIDE * (1 - served.unknown_rate), 2), round(SIDE - axis.at(served.accuracy), 2)
    return Curve(axis, "M" + "L".join(points), at)


def matrix(cells: Cells, *, classes: int) -> Matrix:
    """Each cell's share of its row; of more than `MATRIX_CLASSES` classes those with the most mistakes."""
    totals, mistakes = Counter[int](), Counter[int]()
    for truth, label, count in cells:
        totals[truth] += count
        mistakes[truth] += count * (truth != label)
    kept = sorted(sorted(range(classes), key=lambda number: (-mistakes[number], number))[:MATRIX_CLASSES])
    place = {number: index for index, number in enumerate(kept)}
    squares: list[list[str]] = [[] for _ in range(SHADES)]
    for truth, label, count in sorted(cells):
        if truth in place and label in place:  # a lone mistake in a thousand is still seen
            shade = min(int(SHADES * count / totals[truth]), SHADES - 1)
            squares[shade].append(f"M{place[label]} {place[truth]}h1v1h-1z")
    paths = tuple(((shade + 1) / SHADES, "".join(drawn)) for shade, drawn in enumerate(squares) if drawn)
    return Matrix(len(kept), classes - len(kept), paths)


def rows_of(cells: Cells, *, classes: int) -> list[list[int]]:
    """The whole matrix, for a table of few classes."""
    found = [[0] * classes for _ in range(classes)]
    for truth, label, count in cells:
        found[truth][label] = count
    return found


def confused_pairs(cells: Cells, labels: Sequence[str], *, most: int) -> list[Pair]:
    """The most frequent mistakes, by images and then by their share of the true class."""
    totals = Counter[int]()
    for truth, _, count in cells:
        totals[truth] += count
    pairs = [
        Pair(labels[truth], labels[label], count, count / totals[truth])
        for truth, label, count in cells
        if truth != label
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, -pair.share, pair.truth, pair.label))[:most]
