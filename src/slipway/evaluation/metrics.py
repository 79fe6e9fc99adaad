"""What a classifier's probabilities are worth on a labelled split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from slipway.evaluation.intervals import f1_interval, share_interval
from slipway.evaluation.reliability import expected_calibration_error, predicted

TOP_K = (3, 5, 10)
ERROR = 0.025  # of each bound: the intervals are of 95 %


def evaluate(
    probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    """Top-1 and top-k, ECE, precision, recall and F1 per class with their 95 % intervals and their means, confusion.

    `macro` weighs every class alike, `weighted` by its images. Rows of the confusion matrix are the truth.
    """
    predicted_n = predicted(probability_nc)
    class_ids = np.arange(len(labels))
    per_class = metrics.precision_recall_fscore_support(truth_n, predicted_n, labels=class_ids, zero_division=0)
    support = per_class[3]
    confusion_cc = metrics.confusion_matrix(truth_n, predicted_n, labels=class_ids)
    right = int((predicted_n == truth_n).sum())
    names = ("precision", "recall", "f1")
    return {
        "images": len(truth_n),
        "top1": right / len(truth_n),
        "top1_interval": share_interval(right, len(truth_n), error=ERROR),
        "top_k": {str(k): top_k_accuracy(probability_nc, truth_n, k=k) for k in TOP_K if k < len(labels)},
        "macro_f1": float(per_class[2].mean()),
        "macro": {name: float(values.mean()) for name, values in zip(names, per_class, strict=False)},
        "weighted": {
            name: float(np.average(values, weights=support)) for name, values in zip(names, per_class, strict=False)
        },
        "ece": expected_calibration_error(probability_nc, truth_n),
        "per_class": {
            label: _class_figures(
                *(float(values[i]) for values in per_class[:3]),
                images=int(support[i]),
                predictions=int((predicted_n == i).sum()),
                right=int(confusion_cc[i, i]),
            )
            for i, label in enumerate(labels)
        },
        "confusion": confusion_cc.tolist(),
    }


def _class_figures(
    precision: float, recall: float, f1: float, *, images: int, predictions: int, right: int
) -> dict[str, Any]:
    return {
        "images": images,
        "precision": precision,
        "precision_interval": share_interval(right, predictions, error=ERROR),
        "recall": recall,
        "recall_interval": share_interval(right, images, error=ERROR),
        "f1": f1,
        "f1_interval": f1_interval(right, images + predictions - right, error=ERROR),
    }


def top_k_accuracy(probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], *, k: int) -> float:
    """The share of images whose class is among their `k` most probable; ties are served, and counted, in class order.

    With `k` of all classes and more it is the share that has an answer.
    """
    of_truth_n1 = np.take_along_axis(probability_nc, truth_n[:, None], axis=1)
    before_nc = np.arange(probability_nc.shape[1]) < truth_n[:, None]
    ahead_nc = (probability_nc > of_truth_n1) | ((probability_nc == of_truth_n1) & before_nc)
    return float(((ahead_nc.sum(axis=1) < k) & probability_nc.any(axis=1)).mean())


def mean_average_precision(
    probability_nc: npt.NDArray[np.float32], truth_nc: npt.NDArray[np.bool_], labels: Sequence[str]
) -> dict[str, Any]:
    """Multi-label: average precision per class, and its mean over the classes that an image has; others are None.

    Args:
        truth_nc: whether an image has a label.
    """
    per_class = {
        label: float(metrics.average_precision_score(truth_nc[:, i], probability_nc[:, i]))
        if truth_nc[:, i].any()
        else None
        for i, label in enumerate(labels)
    }
    found = [value for value in per_class.values() if value is not None]
    return {"map": float(np.mean(found)) if found else None, "per_class": per_class}
