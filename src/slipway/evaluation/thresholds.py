"""Fits the probability from which on each label is answered, on the validation split (multi-label)."""

import numpy as np
import numpy.typing as npt

from slipway.contract import DataError
from slipway.contract.spec import ThresholdPolicy

DECIMALS = 4  # a threshold is part of the bundle's id, and later digits differ between machines
NEVER_SEEN = 0.5
"""Threshold of a class that no validation image has."""
Floats = npt.NDArray[np.float64]


def fit_thresholds(
    probability_nc: npt.NDArray[np.float32],
    truth_nc: npt.NDArray[np.bool_],
    policy: ThresholdPolicy | None,
    *,
    labels: tuple[str, ...],
) -> tuple[float, ...]:
    """Fit one threshold per class; without a policy, for the highest F1 of each class (Lipton, Elkan and Naryanaswamy,
    "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014, on the images at hand).

    A threshold lies midway between two neighbouring probabilities, to separate new images the same way; among equally
    good ones the nearest to 0.5 is taken.

    Raises:
        DataError: `policy` asks for a precision that a class does not reach.
    """
    policy = policy or ThresholdPolicy()
    if policy.fixed is not None:
        return (policy.fixed,) * len(labels)
    return tuple(
        _fit_class(probability_n, truth_n, policy, label=label)
        for probability_n, truth_n, label in zip(probability_nc.T, truth_nc.T, labels, strict=True)
    )


def _fit_class(
    probability_n: npt.NDArray[np.float32], truth_n: npt.NDArray[np.bool_], policy: ThresholdPolicy, *, label: str
) -> float:
    positives = int(truth_n.sum())
    if not positives:
        return NEVER_SEEN
    threshold_t, right_t, given_t = _candidates(probability_n, truth_n)
    precision_t, recall_t = right_t / np.maximum(given_t, 1), right_t / positives
    if policy.precision is not None:
        reached = np.flatnonzero((precision_t >= policy.precision) & (right_t > 0))
        if not len(reached):
            raise DataError(
                f"decision.thresholds.precision: {policy.precision} given, but {label!r} reaches at most "
                f"{precision_t.max():.3f} on its {positives} validation images; ask for less, or for a recall"
            )
        return float(threshold_t[reached].min())
    if policy.recall is not None:
        return float(threshold_t[recall_t >= policy.recall].max())  # 0 would give the label to every image
    f1_t = 2 * right_t / (given_t + positives)
    best = np.flatnonzero(f1_t >= f1_t.max() - 1e-12)
    return float(threshold_t[best][np.abs(threshold_t[best] - 0.5).argmin()])


def _candidates(
    probability_n: npt.NDArray[np.float32], truth_n: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Return every threshold that splits the images differently, rounded as written, with the numbers of right and of
    given labels, compared in FP32 as in the step."""
    distinct = np.unique(probability_n).astype(np.float64)
    threshold_t = np.unique(np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2]).round(DECIMALS))
    order = np.argsort(probability_n)
    below_t = np.searchsorted(probability_n[order], threshold_t.astype(np.float32), side="left")
    right_before_n = np.concatenate([[0], np.cumsum(truth_n[order])])
    right_t = right_before_n[-1] - right_before_n[below_t]
    return threshold_t, right_t.astype(np.float64), (len(probability_n) - below_t).astype(np.float64)
