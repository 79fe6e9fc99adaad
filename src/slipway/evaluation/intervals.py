"""Bounds a share that was counted on a sample."""

import math

from scipy.special import betaincinv

from slipway.contract.evidence.evaluation import Interval

ERROR = 0.025
"""Error of each bound of an interval that an evaluation reports: together they cover 95 %."""


def share_interval(count: int, total: int, *, error: float) -> Interval:
    """Return exact bounds of a share, each wrong with probability `error` at most.

    Source: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", 1934.
    """
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, error))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - error))
    return low, high


def images_to_prove(limit_points: float, *, error: float) -> int:
    """Return the fewest images whose upper bound is within a limit in percentage points, where the count is 0.

    Source: the Clopper-Pearson bound of 0 in n is 1 - error ** (1 / n), Clopper and Pearson, 1934.
    """
    share = limit_points / 100
    return 1 if share >= 1 else math.ceil(math.log(error) / math.log1p(-share))


def f1_interval(true_positives: int, positives_or_predicted: int, *, error: float) -> Interval:
    """Return exact bounds of F1, given the number of images that have the class, are answered with it, or both.

    F1 = 2 J / (1 + J) grows with J, the share of true positives among those images, and J is a share like any other.
    """
    low, high = share_interval(true_positives, positives_or_predicted, error=error)
    return 2 * low / (1 + low), 2 * high / (1 + high)
