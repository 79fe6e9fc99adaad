"""Draws the page's charts and reads the confusion matrix. Every number in them also stands beside them as text."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

from slipway.contract.evidence.evaluation import Coverage, Reliability, UnknownEffect
from slipway.pages.charts import DIM, PAGE, TONES, Svg, axes, in_percent, shades, styled, svg

CLASSES_DRAWN, SHADES = 150, 5
Cells = Sequence[tuple[int, int, int]]
"""Cells of a confusion matrix as class, answer, images; cells without an image are left out."""


@dataclass(frozen=True)
class ConfusedPair:
    """A class that is mistaken for another one."""

    truth: str
    label: str
    images: int
    share: float
    """Share of the true class's images that are mistaken."""


@styled
def diagrams(before: Reliability, after: Reliability) -> tuple[Svg, Svg]:
    """Draw accuracy over confidence with 95 % intervals, before and after, on equal axes; the diagonal is perfect."""
    bins = (*before.bins, *after.bins)
    least = least_shown(value for item in bins for value in (item.confidence, item.accuracy))
    most = max(item.images for item in bins)
    found = []
    for name, reliability in (("before", before), ("after", after)):
        chart = axes(4, 3.3)
        chart.plot([0, 1], [0, 1], color=DIM, linewidth=0.8, linestyle="--")
        for item in reliability.bins:
            low, high = item.accuracy_interval
            chart.vlines(item.confidence, low, high, color=TONES["plain"], alpha=0.5, linewidth=1.5)
            side = 4 + 5 * math.sqrt(item.images / most)
            chart.plot(item.confidence, item.accuracy, "o", color=TONES["plain"], markersize=side, clip_on=False)
        chart.set(xlim=(least, 1), ylim=(least, 1), xlabel="probability of the answer", ylabel="accuracy")
        in_percent(chart.xaxis, chart.yaxis)
        found.append(svg(chart, label=f"Accuracy over probability, {name} calibration"))
    return found[0], found[1]


@styled
def curve(coverage: Coverage, served: UnknownEffect | None) -> Svg:
    """Draw accuracy over coverage, on a zoomed axis, and the point at which `unknown` serves."""
    chart = axes(4, 3.3)
    chart.plot(*zip(*coverage.curve, strict=True), color=TONES["plain"])
    if served is not None and served.accuracy is not None:
        (dot,) = chart.plot(1 - served.unknown_rate, served.accuracy, "o", color=TONES["good"], markersize=8)
        dot.set(markeredgecolor=PAGE, clip_on=False, zorder=3)
    least = least_shown(accuracy for _, accuracy in coverage.curve)
    chart.set(xlim=(0, 1), ylim=(least, 1), xlabel="share of images answered", ylabel="accuracy")
    in_percent(chart.xaxis, chart.yaxis)
    return svg(chart, label="Accuracy of the answered images over the share answered")


@styled
def matrix(cells: Cells, *, classes: int) -> tuple[Svg, int]:
    """Shade each cell by its share of the row. Large matrices keep the classes with the most mistakes; also returns the
    number of classes left out."""
    truth_m, answer_m, count_m = np.array(cells, np.int64).reshape(-1, 3).T
    mistakes_c = np.bincount(truth_m, count_m * (truth_m != answer_m), classes)
    kept = np.sort(np.argsort(-mistakes_c, kind="stable")[:CLASSES_DRAWN])
    share_cc = coo_array((count_m / np.bincount(truth_m, count_m)[truth_m], (truth_m, answer_m)), shape=(classes,) * 2)
    shade_cc = np.ceil(share_cc.tocsr()[kept][:, kept].toarray() * SHADES) / SHADES  # keeps a lone mistake visible
    chart = axes(4.5, 4.3)
    shades(chart, shade_cc)
    chart.set(xlabel="answer", ylabel="truth")
    return svg(chart, label=f"Confusion matrix of {len(kept)} classes"), classes - len(kept)


def least_shown(values: Iterable[float]) -> float:
    """Return the start of the shortest axis up to 1 that holds the values and spans 1, 2, 5, 10, 20, 50 or 100 %."""
    least = min([1.0, *values])
    return next(low for low in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5, 0.0) if low <= least + 1e-12)


def rows_of(cells: Cells, *, classes: int) -> list[list[int]]:
    """Return the whole matrix, for a table of few classes."""
    found = [[0] * classes for _ in range(classes)]
    for truth, label, count in cells:
        found[truth][label] = count
    return found


def confused_pairs(cells: Cells, labels: Sequence[str], *, most: int) -> list[ConfusedPair]:
    """Return the most frequent mistakes, by images and then by their share of the true class."""
    totals = Counter[int]()
    for truth, _, count in cells:
        totals[truth] += count
    pairs = [
        ConfusedPair(labels[truth], labels[label], count, count / totals[truth])
        for truth, label, count in cells
        if truth != label
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, -pair.share, pair.truth, pair.label))[:most]
