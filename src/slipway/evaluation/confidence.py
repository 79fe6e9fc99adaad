"""Fits the calibration of confidence on the validation split, so that probabilities match accuracy.

Both fits need finite logits and give the same numbers on every machine: see DECIMALS.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

DECIMALS = 3  # later digits differ between machines, and the fitted numbers are part of the bundle's id
BLOCK = 1 << 22
"""Most numbers in one block of the computation."""
SLOPES, OFFSETS = (0.01, 100.0), (-50.0, 50.0)


def fit_temperature(logits_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64]) -> float:
    """Return the temperature with the lowest negative log-likelihood, between 0.05 and 20.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    rows = max(BLOCK // logits_nc.shape[1], 1)  # 10,000 images of 10,000 classes at once would be gigabytes

    def losses(start: int, log_temperature: float) -> npt.NDArray[np.float64]:
        scaled = logits_nc[start : start + rows].astype(np.float64) / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        log_sum: npt.NDArray[np.float64] = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        of_truth: npt.NDArray[np.float64] = scaled[np.arange(len(scaled)), truth_n[start : start + rows]]
        return log_sum - of_truth

    def loss(log_temperature: float) -> float:
        return float(np.concatenate([losses(at, log_temperature) for at in range(0, len(truth_n), rows)]).mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return round(float(np.exp(best.x)), DECIMALS)


def fit_platt(logits_nc: npt.NDArray[np.float32], truth_nc: npt.NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Multi-label: fit slope and offset of each class, so that sigmoid(slope * logit + offset) is its probability.

    A class that every image or no image has keeps (1, 0).

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets, which stay away from 0
    and 1: perfectly separated classes do not get infinite slopes.
    """
    return tuple(
        _fit_class(logits_n.astype(np.float64), truth_n)
        for logits_n, truth_n in zip(logits_nc.T, truth_nc.T, strict=True)
    )


def _fit_class(logits_n: npt.NDArray[np.float64], truth_n: npt.NDArray[np.bool_]) -> tuple[float, float]:
    positives, negatives = int(truth_n.sum()), int((~truth_n).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target_n = np.where(truth_n, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss_and_slopes(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scaled_n = parameters[0] * logits_n + parameters[1]
        off_n = expit(scaled_n) - target_n
        loss = (np.logaddexp(0, scaled_n) - target_n * scaled_n).mean()
        return float(loss), np.array([(off_n * logits_n).mean(), off_n.mean()])

    start = np.array([1.0, 0.0])
    best = minimize(loss_and_slopes, start, jac=True, bounds=(SLOPES, OFFSETS), method="L-BFGS-B", tol=1e-12)
    return round(float(best.x[0]), DECIMALS), round(float(best.x[1]), DECIMALS)
