"""Measures how well probabilities match accuracy: the calibration error, its interval, and the diagram behind it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from slipway.contract.evidence.evaluation import Bin, Reliability
from slipway.evaluation.intervals import ERROR, share_interval

ECE_BINS, RESAMPLES = 15, 1000
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def predicted(probability_nc: npt.NDArray[np.float32]) -> Counts:
    """Return the class of each row, or -1, which is never right, where there is no answer (all zero)."""
    return np.where(probability_nc.any(axis=1), probability_nc.argmax(axis=1), -1)


def expected_calibration_error(probability_nc: npt.NDArray[np.float32], truth_n: Counts) -> float:
    """Return the ECE over 15 bins of equal mass: the mean of |accuracy - confidence|, weighted by images per bin.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015; equal-mass bins
    as in Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    confidence_n, correct_n, bins_of = _binning(probability_nc, truth_n)
    once_n = np.ones(len(truth_n), np.int64)
    return _error(correct_n - confidence_n, once_n, bins_of(once_n))


def reliability(probability_nc: npt.NDArray[np.float32], truth_n: Counts) -> Reliability:
    """Return the ECE, its 95 % bootstrap interval (percentiles of 1,000 resamples of the images) and all filled bins.

    Each resample has its own bins. Repeated images make bins noisier, so the interval errs upwards: it is more likely
    to accuse a good calibration than to excuse a bad one. Source: Efron, "Bootstrap Methods", 1979.

    Resamples of 36 right answers have no wrong one, and would put the upper end at 0. So it is at least
    `unseen_error`.
    """
    confidence_n, correct_n, bins_of = _binning(probability_nc, truth_n)
    images, gap_n = len(truth_n), correct_n - confidence_n
    rng = np.random.default_rng(0)
    draws = (np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(RESAMPLES))
    low, high = np.percentile([_error(gap_n, times_n, bins_of(times_n)) for times_n in draws], [2.5, 97.5])
    high = max(high, unseen_error(float(confidence_n.mean()), right=int(correct_n.sum()), images=images))
    once_n = np.ones(images, np.int64)
    bin_n = bins_of(once_n)
    filled = [(confidence_n[bin_n == index], correct_n[bin_n == index]) for index in np.unique(bin_n)]
    return Reliability(
        ece=_error(gap_n, once_n, bin_n),
        ece_interval=(float(low), float(high)),
        bins=tuple(
            make_bin(images=len(confidences), confidence=float(confidences.mean()), right=int(correct.sum()))
            for confidences, correct in filled
        ),
    )


def unseen_error(confidence: float, *, right: int, images: int) -> float:
    """Return the largest distance of the mean confidence from the 95 % bounds of the accuracy.

    The ECE is at least the distance of the mean confidence from the true accuracy, and the exact bounds say how far
    away that may be: 0.10 for 36 images that are all answered right with a confidence of 1, 0.007 for 540.
    """
    low, high = share_interval(right, images, error=ERROR)
    return max(confidence - low, high - confidence)


def _binning(
    probability_nc: npt.NDArray[np.float32], truth_n: Counts
) -> tuple[Floats, Floats, Callable[[Counts], Counts]]:
    """Return confidence and correctness (0 or 1), sorted by confidence, and a function from counts to bins.

    Ranks determine the bins. Equal confidences share one, so the order of the images does not matter.
    """
    confidence_n = probability_nc.max(axis=1).astype(np.float64)
    order = np.argsort(confidence_n, kind="stable")
    confidence_n, correct_n = confidence_n[order], (predicted(probability_nc) == truth_n)[order].astype(np.float64)
    first_n = np.searchsorted(confidence_n, confidence_n)  # the first of equal confidences

    def bins_of(times_n: Counts) -> Counts:
        before_n: Counts = np.concatenate([[0], np.cumsum(times_n)])[first_n]
        bin_n: Counts = np.minimum(before_n * ECE_BINS // times_n.sum(), ECE_BINS - 1)
        return bin_n

    return confidence_n, correct_n, bins_of


def bin_of(confidence_n: npt.NDArray[np.float32]) -> Counts:
    """Return the bin of each confidence, out of 15 of equal mass; equal confidences share one."""
    rank_n: Counts = np.searchsorted(np.sort(confidence_n), confidence_n)
    return rank_n * ECE_BINS // len(confidence_n)


def _error(gap_n: Floats, times_n: Counts, bin_n: Counts) -> float:
    return float(np.abs(np.bincount(bin_n, gap_n * times_n)).sum() / times_n.sum())


def make_bin(*, images: int, confidence: float, right: int) -> Bin:
    """Make a bin of `images` images with the mean `confidence`, of which `right` are right."""
    interval = share_interval(right, images, error=ERROR)
    return Bin(images=images, confidence=confidence, accuracy=right / images, accuracy_interval=interval)
