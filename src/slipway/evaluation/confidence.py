"""Temperature scaling: one number, fitted on the validation split, that makes probabilities mean what they say."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

DECIMALS = 3  # the fit differs in later digits between machines, and the temperature is part of the bundle's id


def fit_temperature(logits_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64]) -> float:
    """The temperature of the least negative log-likelihood, between 0.05 and 20.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    logits = logits_nc.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        log_sum = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((log_sum - scaled[np.arange(len(truth_n)), truth_n]).mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return round(float(np.exp(best.x)), DECIMALS)
