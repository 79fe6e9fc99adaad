"""Computes multi-label metrics: mAP, precision, recall and F1 of each label, reliability over all of them; and the true
labels of images as arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import DataError
from slipway.contract.decision import Task
from slipway.contract.evidence.evaluation import Interval, LabelFigures, LabelMetrics, Means, Reliability
from slipway.evaluation.intervals import ERROR, share_interval
from slipway.evaluation.metrics import class_figures, mean_average_precision
from slipway.evaluation.reliability import ECE_BINS, RESAMPLES, Floats, bin_of, make_bin

FEW_RESAMPLES, MANY_PAIRS = 200, 2_000_000
Table = npt.NDArray[np.bool_]


def truth_of(class_ids: Sequence[Sequence[int]], *, task: Task, classes: int) -> npt.NDArray[Any]:
    """Class ids `INT64 [n]` or, for multi-label, a table `BOOL [n, classes]`."""
    if task == "multilabel":
        return table(class_ids, classes=classes)
    return np.array([class_id for (class_id,) in class_ids], np.int64)


def table(class_ids: Sequence[Sequence[int]], *, classes: int) -> npt.NDArray[np.bool_]:
    """Turn lists of class ids into a table `[n, classes]`."""
    found_nc = np.zeros((len(class_ids), classes), np.bool_)
    for row, listed in enumerate(class_ids):
        found_nc[row, list(listed)] = True
    return found_nc


def evaluate_labels(
    probability_nc: npt.NDArray[np.float32], given_nc: Table, truth_nc: Table, labels: Sequence[str]
) -> LabelMetrics:
    """Compute mAP, exact match, precision, recall and F1 of each label and their means, with 95 % intervals.

    `exact_match` is the share of images that got all of their labels and no other. `macro` weights every label equally;
    `micro` counts all labels together. Intervals of AP and mAP come from a bootstrap over the images, since the labels
    of an image are not independent.

    Args:
        given_nc: the answered labels.

    Raises:
        DataError: no image has a label.
    """
    exact = int((given_nc == truth_nc).all(axis=1).sum())
    mean_precision, precisions = mean_average_precision(probability_nc, truth_nc, labels)
    map_interval, interval_c = _average_precision_intervals(probability_nc, truth_nc)
    if mean_precision is None or map_interval is None:
        raise DataError(f"none of {len(truth_nc)} test images has a label; add images with labels to the test split")
    right_c, given_c, images_c = (table.sum(axis=0) for table in (given_nc & truth_nc, given_nc, truth_nc))
    per_class = {
        label: LabelFigures(
            ap=precisions[label],
            ap_interval=interval_c[i],
            given=int(given_c[i]),
            **class_figures(images=int(images_c[i]), given=int(given_c[i]), right=int(right_c[i])).fields(),
        )
        for i, label in enumerate(labels)
    }
    rows = per_class.values()
    macro = Means(**{name: float(np.mean([getattr(row, name) for row in rows])) for name in Means.model_fields})
    every = class_figures(images=int(images_c.sum()), given=int(given_c.sum()), right=int(right_c.sum()))
    return LabelMetrics(
        task="multilabel",
        images=len(truth_nc),
        map=mean_precision,
        map_interval=map_interval,
        exact_match=exact / len(truth_nc),
        exact_match_interval=share_interval(exact, len(truth_nc), error=ERROR),
        macro_f1=macro.f1,
        macro=macro,
        micro=Means(precision=every.precision, recall=every.recall, f1=every.f1),
        ece=label_reliability(probability_nc, truth_nc).ece,
        per_class=per_class,
    )


def label_reliability(probability_nc: npt.NDArray[np.float32], truth_nc: Table) -> Reliability:
    """Compute the ECE over all pairs of image and label: the gap between a label's probability and its frequency.

    As in `reliability.reliability`, but counting pairs: 15 bins of equal mass, which stay the same while the images are
    resampled for the interval. The interval of a bin treats its pairs as independent.
    """
    pair_bin_nc = bin_of(probability_nc.ravel()).reshape(probability_nc.shape)
    images, pairs = len(truth_nc), truth_nc.size
    row_nc = np.broadcast_to(np.arange(images)[:, None], pair_bin_nc.shape)
    flat = (row_nc * ECE_BINS + pair_bin_nc).ravel()

    def by_image(weight_nc: Floats) -> Floats:
        summed: Floats = np.bincount(flat, weight_nc.ravel(), images * ECE_BINS).astype(np.float64)
        return summed.reshape(images, ECE_BINS)

    probability = probability_nc.astype(np.float64)
    gap_nb = by_image(truth_nc - probability)
    eces = [float(np.abs(times_n @ gap_nb).sum() / pairs) for times_n in _draws(images, RESAMPLES)]
    low, high = np.percentile(eces, [2.5, 97.5])
    count_b, sum_b, right_b = (by_image(w).sum(axis=0) for w in (np.ones(truth_nc.shape), probability, truth_nc * 1.0))
    return Reliability(
        ece=float(np.abs(gap_nb.sum(axis=0)).sum() / pairs),
        ece_interval=(float(low), float(high)),
        bins=tuple(
            make_bin(images=int(count), confidence=float(sum_b[index] / count), right=int(right_b[index]))
            for index, count in enumerate(count_b)
            if count
        ),
    )


def _average_precision_intervals(
    probability_nc: npt.NDArray[np.float32], truth_nc: Table
) -> tuple[Interval | None, list[Interval | None]]:
    """Return the intervals of mAP and of each label's AP, from 1,000 resamples of the images (200 for a large table);
    None where no image has the label. Source: Efron, "Bootstrap Methods", 1979."""
    resamples = FEW_RESAMPLES if truth_nc.size > MANY_PAIRS else RESAMPLES
    times_rn = np.stack(list(_draws(len(truth_nc), resamples)))
    sums_r, seen = np.zeros(resamples), 0
    intervals: list[Interval | None] = []
    for probability_n, truth_n in zip(probability_nc.T, truth_nc.T, strict=True):
        if not truth_n.any():
            intervals.append(None)
            continue
        ap_r = weighted_average_precision(probability_n, truth_n, times_rn)
        intervals.append(_bounds(ap_r))
        sums_r, seen = sums_r + ap_r, seen + 1
    return (_bounds(sums_r / seen) if seen else None), intervals


def weighted_average_precision(
    probability_n: npt.NDArray[np.float32], truth_n: Table, times_rn: npt.NDArray[np.int64]
) -> Floats:
    """Compute scikit-learn's average precision for each row of `times_rn`, which says how often each image counts; 0
    where no counted image has the label."""
    order = np.argsort(-probability_n, kind="stable")
    last_n = np.append(probability_n[order][1:] != probability_n[order][:-1], True)  # the last of equal probabilities
    times_rn = times_rn[:, order]
    given_rt = times_rn.cumsum(axis=1)[:, last_n]
    right_rt = (times_rn * truth_n[order]).cumsum(axis=1)[:, last_n]
    gained_rt = np.diff(right_rt, axis=1, prepend=0)
    precision_rt = right_rt / np.maximum(given_rt, 1)
    found: Floats = (gained_rt * precision_rt).sum(axis=1) / np.maximum(right_rt[:, -1], 1)
    return found


def _draws(images: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(resamples))


def _bounds(value_r: Floats) -> Interval:
    low, high = np.percentile(value_r, [2.5, 97.5])
    return float(low), float(high)
