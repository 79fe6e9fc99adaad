"""Says, before any training, which limits of the accuracy gate the test images are too few to prove."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from slipway.contract import Spec
from slipway.contract.evidence.gate import PASS, GateResult
from slipway.contract.selection import listed
from slipway.engines.gate import compare, compare_labels
from slipway.evaluation.intervals import images_to_prove

REMEDY = "test on more images, raise these limits"


def too_few(class_ids: Sequence[tuple[int, ...]], labels: Sequence[str], spec: Spec) -> str | None:
    """The precisions for which these test images are too few, and the numbers; None if they suffice.

    The gate itself judges: an engine that answers every image right, as FP32 does, must pass it.
    """
    gated = [precision for precision in listed(spec, lane="cpu") if precision != "fp32"]
    result = flawless(class_ids, labels, spec)
    if not gated or result.verdict == PASS:
        return None
    first = f"too few test images: {' and '.join(gated)} would not pass their gate even by answering as FP32 does"
    return "\n".join([first, *(f"  {line}" for line in unproven(result))])


def flawless(class_ids: Sequence[tuple[int, ...]], labels: Sequence[str], spec: Spec) -> GateResult:
    """The gate's result for an engine that answers every one of these test images right, as FP32 does."""
    if spec.task == "multilabel":
        truth_nc = np.zeros((len(class_ids), len(labels)), np.bool_)
        for row, ids in enumerate(class_ids):
            truth_nc[row, list(ids)] = True
        return compare_labels(truth_nc, truth_nc, truth_nc, labels, spec.accuracy)
    truth_n = np.array([ids[0] for ids in class_ids], np.int64)
    return compare(truth_n, truth_n, truth_n, labels, spec.accuracy)


def unproven(result: GateResult) -> Iterator[str]:
    """Each limit that the images of a `flawless` result cannot prove: what they can, and how many images could."""
    overall, flips, reference = result.overall, result.flips, result.reference
    error = 1 - result.confidence
    if overall.verdict != PASS:
        needed = images_to_prove(overall.max_loss_points, error=error / 2)
        best = _best(overall.images, "test images", overall.loss_high_points)
        yield f"{best} (accuracy.max_loss_points: {overall.max_loss_points:g}); that takes {needed:,} test images"
    if flips.verdict != PASS:
        needed = images_to_prove(flips.max_flip_points, error=error)
        best = _best(flips.images, "test images", flips.flip_high_points, what="share of changed answers")
        yield f"{best} (accuracy.max_flip_points: {flips.max_flip_points:g}); that takes {needed:,} test images"
    if result.hindering:
        label, worst = min(result.hindering.items(), key=lambda item: item[1].images)
        needed = images_to_prove(worst.max_loss_points, error=error / 2 / len(result.classes))
        best = _best(worst.images, f"test images of class {label}", worst.loss_high_points)
        yield (
            f"{best} (accuracy.max_class_loss_points: {worst.max_loss_points:g}); that takes {needed:,} test images of "
            "each class, or accuracy.prove_classes: false"
        )
    if reference.verdict != PASS:
        yield f"{overall.images:,} test images cannot prove FP32 itself better than chance"


def _best(images: int, of: str, high_points: float, *, what: str = "loss") -> str:
    """Rounded up, so that the number would pass as a limit."""
    return f"{images:,} {of} prove no {what} smaller than {math.ceil(10 * high_points) / 10:g} points"
