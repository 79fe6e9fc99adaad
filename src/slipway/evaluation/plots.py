"""Pictures of an evaluation."""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure
from scipy.sparse import coo_array

from slipway.contract.evidence.evaluation import LabelFigures

CLASSES_DRAWN, NAMES_DRAWN, LABELS_DRAWN, LONGEST_DRAWN = 150, 40, 60, 40
PLAIN_TEXT = {"text.parse_math": False, "text.usetex": False, "font.family": ["DejaVu Sans"]}
"""Words are drawn as they are, with the font that matplotlib brings: a `$` is no formula, and machines draw alike."""
BY_ID = "#: class ids; the font has no such letters"


def is_drawable(label: str) -> bool:
    """Whether the font has every letter; without shaping, of scripts that are written from left to right."""
    letters = _letters()
    return all(ord(c) in letters and unicodedata.bidirectional(c) not in ("R", "AL") for c in label)


@cache
def _letters() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def drawn(labels: Sequence[str], class_ids: Sequence[int]) -> tuple[list[str], str]:
    """What stands for each label in a picture: itself, cut where it is long, or `#` and its class id where it cannot be
    drawn; and the note that the caption then needs."""
    names = [
        label[: LONGEST_DRAWN - 1] + "…" * (len(label) >= LONGEST_DRAWN) if is_drawable(label) else f"#{class_id}"
        for label, class_id in zip(labels, class_ids, strict=True)
    ]
    return names, "" if all(map(is_drawable, labels)) else f"\n{BY_ID}"


@rc_context(PLAIN_TEXT)
def plot_confusion(cells: Sequence[tuple[int, int, int]], labels: Sequence[str], path: Path) -> None:
    """The confusion matrix, rows normalised by the truth, of many classes the `CLASSES_DRAWN` with the most mistakes;
    counts are written in while they can be read.

    Args:
        cells: class, answer, images; cells without an image are left out.
    """
    truth_m, answer_m, count_m = np.array(cells, np.int64).reshape(-1, 3).T
    total_c = np.bincount(truth_m, count_m, len(labels))
    mistakes_c = np.bincount(truth_m, count_m * (truth_m != answer_m), len(labels))
    kept = np.sort(np.argsort(-mistakes_c, kind="stable")[:CLASSES_DRAWN])
    confusion_cc = coo_array((count_m, (truth_m, answer_m)), shape=(len(labels),) * 2).tocsr()[kept][:, kept].toarray()
    share = confusion_cc / np.maximum(total_c[kept, None], 1)
    side = min(4 + 0.35 * len(kept), 30)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    left_out = f", {len(labels) - len(kept)} classes left out" if len(kept) < len(labels) else ""
    names, note = drawn(labels, range(len(labels))) if len(kept) <= NAMES_DRAWN else ([], "")
    axes.set(xlabel="predicted", ylabel="truth", title=f"Confusion matrix, test split{left_out}{note}")
    if names:
        axes.set_xticks(range(len(labels)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(labels)), names)
        for row, column in zip(*np.nonzero(confusion_cc), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion_cc[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=110, metadata={"Software": None})


@rc_context(PLAIN_TEXT)
def plot_labels(per_class: Mapping[str, LabelFigures], path: Path) -> None:
    """Average precision and F1 of each label with their intervals, of many labels the `LABELS_DRAWN` lowest by F1."""
    rows = sorted(per_class.items(), key=lambda item: (item[1].f1, item[0]))[:LABELS_DRAWN]
    figure = Figure(figsize=(6, 1.5 + 0.25 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for offset, name in ((-0.15, "ap"), (0.15, "f1")):
        found = [
            (y + offset, value, getattr(row, f"{name}_interval"))
            for y, (_, row) in enumerate(rows)
            if (value := getattr(row, name)) is not None
        ]
        spans = [[value - low for _, value, (low, _) in found], [high - value for _, value, (_, high) in found]]
        errors = np.maximum(spans, 0)
        axes.errorbar([v for _, v, _ in found], [y for y, _, _ in found], xerr=errors, fmt="o", label=name.upper())
    class_ids = {label: class_id for class_id, label in enumerate(per_class)}
    names, note = drawn([label for label, _ in rows], [class_ids[label] for label, _ in rows])
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlim=(0, 1.02), title=f"Labels, test split, 95 % intervals{note}")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110, metadata={"Software": None})
