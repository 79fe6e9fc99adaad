"""Calibrates a network on labels of which some are wrong."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

TEMPERATURES, NOISE = (0.05, 20.0), (0.0, 0.5)
STARTS = (0.25, 1.0)


def fit_noisy_temperature(logits_nc: npt.NDArray[np.float32], given_n: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Fit temperature and share of wrong labels by maximum likelihood; every wrong label is equally likely.

    p(given) = (1 - share) softmax(logits / temperature)[given] + share / classes. A temperature alone would make the
    network as unsure as its labels are wrong, and cleanlab would then miss obvious errors. Source of the model:
    Sukhbaatar et al., "Training Convolutional Networks with Noisy Labels", 2015, with one number for its matrix.
    """
    logits, classes = logits_nc.astype(np.float64), logits_nc.shape[1]
    rows = np.arange(len(given_n))

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        right_n = np.exp(log_softmax(logits / np.exp(parameters[0]), axis=1)[rows, given_n])
        return float(-np.log((1 - parameters[1]) * right_n + parameters[1] / classes + 1e-300).mean())

    bounds = (np.log(TEMPERATURES), NOISE)
    found = [minimize(loss, (np.log(start), 0.05), bounds=bounds, method="L-BFGS-B") for start in STARTS]
    log_temperature, share = min(found, key=lambda fit: float(fit.fun)).x
    return float(np.exp(log_temperature)), float(share)
