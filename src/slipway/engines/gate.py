"""The accuracy gate: what a precision loses against FP32 on the same images, and whether that is proven."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from slipway.contract.spec import AccuracyGate

PASS, FAIL, TOO_FEW = "pass", "fail", "too few images to tell"


@dataclass(frozen=True)
class GateResult:
    """Top-1 loss in percentage points, its exact interval, and the verdict."""

    images: int
    lost: int
    """Right in FP32 and wrong here."""
    gained: int
    """Wrong in FP32 and right here."""
    loss_points: float
    loss_low_points: float
    loss_high_points: float
    max_loss_points: float
    confidence: float
    verdict: str

    def __str__(self) -> str:
        return (
            f"top-1 loss {self.loss_points:+.2f} points ({self.lost} lost, {self.gained} gained of {self.images}), "
            f"between {self.loss_low_points:+.2f} and {self.loss_high_points:+.2f} at {self.confidence:.0%}, limit "
            f"{self.max_loss_points:g}: {self.verdict}"
        )


def compare(
    reference_correct_n: npt.NDArray[np.bool_], correct_n: npt.NDArray[np.bool_], gate: AccuracyGate
) -> GateResult:
    """Paired comparison of two classifiers on the same images.

    The loss is P(lost) - P(gained). Each share has an exact one-sided Clopper-Pearson bound at half the error
    probability, so their difference bounds the loss at `confidence` (Bonferroni). `pass`: the upper bound is within
    the limit; `fail`: the lower bound is over it; otherwise these images cannot tell.
    Source: Clopper and Pearson, "The Use of Confidence or Fiducial Limits", 1934.
    """
    images = len(correct_n)
    lost = int((reference_correct_n & ~correct_n).sum())
    gained = int((~reference_correct_n & correct_n).sum())
    error = (1 - gate.confidence) / 2
    high = 100 * (_upper(lost, images, error) - _lower(gained, images, error))
    low = 100 * (_lower(lost, images, error) - _upper(gained, images, error))
    verdict = PASS if high <= gate.max_loss_points else FAIL if low > gate.max_loss_points else TOO_FEW
    return GateResult(
        images=images,
        lost=lost,
        gained=gained,
        loss_points=100 * (lost - gained) / max(images, 1),
        loss_low_points=low,
        loss_high_points=high,
        max_loss_points=gate.max_loss_points,
        confidence=gate.confidence,
        verdict=verdict,
    )


def _upper(count: int, total: int, error: float) -> float:
    return 1.0 if count == total else float(beta.ppf(1 - error, count + 1, total - count))


def _lower(count: int, total: int, error: float) -> float:
    return 0.0 if count == 0 else float(beta.ppf(error, count, total - count + 1))
