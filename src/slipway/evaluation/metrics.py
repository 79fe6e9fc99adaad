"""What a classifier's probabilities are worth on a labelled split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

ECE_BINS = 15


def evaluate(
    probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    """Top-1, macro-F1, ECE, per-class precision, recall and F1, and the confusion matrix (rows are the truth)."""
    predicted_n = probability_nc.argmax(axis=1)
    class_ids = np.arange(len(labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth_n, predicted_n, labels=class_ids, zero_division=0
    )
    return {
        "images": len(truth_n),
        "top1": float((predicted_n == truth_n).mean()),
        "macro_f1": float(f1.mean()),
        "ece": expected_calibration_error(probability_nc, truth_n),
        "per_class": {
            label: {
                "images": int(support[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
            }
            for i, label in enumerate(labels)
        },
        "confusion": metrics.confusion_matrix(truth_n, predicted_n, labels=class_ids).tolist(),
    }


def expected_calibration_error(probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64]) -> float:
    """ECE over 15 bins of equal mass: the mean of |accuracy - confidence| over bins, weighted by their images.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015; equal-mass bins
    as in Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    confidence_n = probability_nc.max(axis=1)
    correct_n = probability_nc.argmax(axis=1) == truth_n
    bins = np.array_split(np.argsort(confidence_n, kind="stable"), ECE_BINS)
    gaps = [abs(correct_n[rows].mean() - confidence_n[rows].mean()) * len(rows) for rows in bins if len(rows)]
    return float(sum(gaps) / len(truth_n))
