"""What a classifier's probabilities are worth on a labelled split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn import metrics

ECE_BINS = 15


def evaluate(
    probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    """Top-1, macro-F1, ECE, per-class precision, recall (with its 95 % interval) and F1, and the confusion matrix.

    Rows of the matrix are the truth.
    """
    predicted_n = predicted(probability_nc)
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
                "recall_interval": share_interval(round(recall[i] * support[i]), int(support[i]), error=0.025),
                "f1": float(f1[i]),
            }
            for i, label in enumerate(labels)
        },
        "confusion": metrics.confusion_matrix(truth_n, predicted_n, labels=class_ids).tolist(),
    }


def share_interval(count: int, total: int, *, error: float) -> tuple[float, float]:
    """Exact bounds of a share, each wrong with probability `error` at most.

    Source: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", 1934.
    """
    low = 0.0 if count == 0 else float(beta.ppf(error, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - error, count + 1, total - count))
    return low, high


def predicted(probability_nc: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The class of each row, or -1 where there is no answer (all zero): that is right about nothing."""
    return np.where(probability_nc.any(axis=1), probability_nc.argmax(axis=1), -1)


def expected_calibration_error(probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64]) -> float:
    """ECE over 15 bins of equal mass: the mean of |accuracy - confidence| over bins, weighted by their images.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015; equal-mass bins
    as in Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    confidence_n = probability_nc.max(axis=1)
    correct_n = predicted(probability_nc) == truth_n
    # The bin by rank; equal confidences share one, so that the order of the images does not matter.
    bin_n = np.searchsorted(np.sort(confidence_n), confidence_n) * ECE_BINS // len(truth_n)
    bins = [bin_n == index for index in np.unique(bin_n)]
    gaps = [abs(correct_n[rows].mean() - confidence_n[rows].mean()) * rows.sum() for rows in bins]
    return float(sum(gaps) / len(truth_n))
