"""Pictures of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

LABELS_DRAWN = 60


def plot_confusion(confusion_cc: npt.NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """The confusion matrix, rows normalised by the truth; counts are written in while they can be read."""
    side = min(4 + 0.35 * len(labels), 30)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    share = confusion_cc / np.maximum(confusion_cc.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="truth", title="Confusion matrix, test split")
    if len(labels) <= 40:
        axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set_yticks(range(len(labels)), labels)
        for row, column in zip(*np.nonzero(confusion_cc), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion_cc[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def plot_labels(per_class: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Average precision and F1 of each label with their intervals, of many labels the `LABELS_DRAWN` lowest by F1."""
    rows = sorted(per_class.items(), key=lambda item: (item[1]["f1"], item[0]))[:LABELS_DRAWN]
    figure = Figure(figsize=(6, 1.5 + 0.25 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for offset, name in ((-0.15, "ap"), (0.15, "f1")):
        found = [
            (y + offset, row[name], row[f"{name}_interval"]) for y, (_, row) in enumerate(rows) if row[name] is not None
        ]
        spans = [[value - low for _, value, (low, _) in found], [high - value for _, value, (_, high) in found]]
        errors = np.maximum(spans, 0)
        axes.errorbar([v for _, v, _ in found], [y for y, _, _ in found], xerr=errors, fmt="o", label=name.upper())
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set(xlim=(0, 1.02), title="Labels, test split, 95 % intervals")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})
