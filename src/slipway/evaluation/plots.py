"""Pictures of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure


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
