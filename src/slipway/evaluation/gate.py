"""The accuracy gate: the loss of a precision against FP32 on the same images, and whether it is, or can be, proven."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import Spec
from slipway.contract.evidence.gate import (
    FAIL,
    PASS,
    TOO_FEW,
    AccuracyResult,
    AccuracyVerdict,
    Comparison,
    Flips,
    ReferenceAnswers,
    Unit,
    tolerated,
)
from slipway.contract.shared_rules import listed
from slipway.contract.spec import AccuracyGate
from slipway.evaluation.intervals import images_to_prove, share_interval
from slipway.evaluation.labels import truth_of

ClassIds = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]
Table = npt.NDArray[np.bool_]
Classes = npt.NDArray[Any]
"""Class ids `INT64 [n]`, or a table `BOOL [n, classes]`."""
REMEDY = "test on more images, raise these limits"


def compare(
    truth_n: ClassIds, reference_n: ClassIds, candidate_n: ClassIds, labels: Sequence[str], gate: AccuracyGate
) -> AccuracyResult:
    """Paired comparison of two classifiers on the same images.

    The loss is P(lost) - P(gained), over all images and over those of each class (its loss of recall). Each share has
    an exact one-sided Clopper-Pearson bound at half the error probability, so their difference bounds the loss at
    `confidence` (Bonferroni). For the classes, the error probability is also divided by their number, so that all
    classes together pass or fail by chance as rarely as one would. Flips are a single share, so each of its bounds has
    the whole error probability. `pass`: the upper bound is within the limit; `fail`: the lower bound exceeds it;
    otherwise the images cannot tell. Nor can they if FP32 itself is not proven to be better than chance.

    Args:
        truth_n: class ids of the images.
        reference_n: class ids that FP32 answered, -1 for no class.
        candidate_n: the same for the engine under test.
    """
    before_n, after_n = reference_n == truth_n, candidate_n == truth_n
    present = [class_id for class_id in range(len(labels)) if (truth_n == class_id).any()]
    of_class = {class_id: truth_n == class_id for class_id in present}
    classes = {labels[c]: (before_n[own_n], after_n[own_n]) for c, own_n in of_class.items()}
    images_c, right_c = (np.bincount(ids, minlength=len(labels)) for ids in (truth_n, truth_n[before_n]))
    limits = {"chance": 1 / max(len(present), 1), "error": 1 - gate.confidence}
    reference = better_than_chance(right_c[present], images_c[present], 1 / images_c[truth_n], **limits)
    return _judge(before_n, after_n, classes, gate, reference, flipped_n=reference_n != candidate_n)


def compare_labels(
    truth_nc: Table, reference_nc: Table, candidate_nc: Table, labels: Sequence[str], gate: AccuracyGate
) -> AccuracyResult:
    """`compare` for multi-label tables `[n, classes]`: an image is right if it is given all of its labels and no other;
    a class, on the images that have it, if it is given."""
    before_n, after_n = ((answered_nc == truth_nc).all(axis=1) for answered_nc in (reference_nc, candidate_nc))
    classes = {
        label: (reference_nc[own_n, class_id], candidate_nc[own_n, class_id])
        for class_id, (label, own_n) in enumerate(zip(labels, truth_nc.T, strict=True))
        if own_n.any()
    }
    told_c = truth_nc.any(axis=0) & ~truth_nc.all(axis=0)
    has_nc, right_nc = truth_nc[:, told_c], (reference_nc == truth_nc)[:, told_c]
    images_k = np.concatenate([has_nc.sum(axis=0), (~has_nc).sum(axis=0)])
    right_k = np.concatenate([(right_nc & has_nc).sum(axis=0), (right_nc & ~has_nc).sum(axis=0)])
    weight_n = has_nc @ (1 / images_k[: told_c.sum()]) + ~has_nc @ (1 / images_k[told_c.sum() :])
    reference = better_than_chance(right_k, images_k, weight_n, chance=1 / 2, error=1 - gate.confidence)
    flipped_n = (reference_nc != candidate_nc).any(axis=1)
    return _judge(before_n, after_n, classes, gate, reference, flipped_n=flipped_n, unit="all labels")


def compare_answers(
    truth: Classes, reference: Classes, candidate: Classes, labels: Sequence[str], gate: AccuracyGate
) -> AccuracyResult:
    """`compare_labels` of tables, `compare` of class ids."""
    return (compare_labels if truth.ndim == 2 else compare)(truth, reference, candidate, labels, gate)


def _judge(
    before_n: Right,
    after_n: Right,
    of_class: Mapping[str, tuple[Right, Right]],
    gate: AccuracyGate,
    reference: ReferenceAnswers,
    *,
    flipped_n: npt.NDArray[np.bool_],
    unit: Unit = "top-1",
) -> AccuracyResult:
    error = 1 - gate.confidence
    overall = compare_pairs(before_n, after_n, max_loss_points=gate.max_loss_points, confidence=gate.confidence)
    classes = {
        label: compare_pairs(
            before_of_class,
            after_of_class,
            max_loss_points=gate.max_class_loss_points,
            confidence=1 - error / len(of_class),
        )
        for label, (before_of_class, after_of_class) in of_class.items()
    }
    flips = count_flips(flipped_n, max_flip_points=gate.flip_limit_points, error=error)
    hindering = [result.verdict for result in classes.values() if not tolerated(result, prove=gate.prove_classes)]
    verdicts = {overall.verdict, flips.verdict, reference.verdict, *hindering}
    return AccuracyResult(
        verdict=FAIL if FAIL in verdicts else TOO_FEW if TOO_FEW in verdicts else PASS,
        overall=overall,
        classes=classes,
        flips=flips,
        reference=reference,
        confidence=gate.confidence,
        prove_classes=gate.prove_classes,
        unit=unit,
    )


def compare_pairs(before_n: Right, after_n: Right, *, max_loss_points: float, confidence: float) -> Comparison:
    """The exact paired comparison of right and wrong answers on one set of images."""
    images, error = len(after_n), (1 - confidence) / 2
    lost, gained = int((before_n & ~after_n).sum()), int((~before_n & after_n).sum())
    lost_low, lost_high = share_interval(lost, images, error=error)
    gained_low, gained_high = share_interval(gained, images, error=error)
    low, high = 100 * (lost_low - gained_high), 100 * (lost_high - gained_low)
    return Comparison(
        images=images,
        lost=lost,
        gained=gained,
        loss_points=100 * (lost - gained) / max(images, 1),
        loss_low_points=low,
        loss_high_points=high,
        max_loss_points=max_loss_points,
        verdict=_verdict(low, high, limit=max_loss_points),
    )


def count_flips(flipped_n: npt.NDArray[np.bool_], *, max_flip_points: float, error: float) -> Flips:
    """The share of images that flipped, with exact bounds that are each wrong with probability at most `error`."""
    images, flips = len(flipped_n), int(flipped_n.sum())
    low, high = (100 * bound for bound in share_interval(flips, images, error=error))
    return Flips(
        images=images,
        flips=flips,
        flip_points=100 * flips / max(images, 1),
        flip_low_points=low,
        flip_high_points=high,
        max_flip_points=max_flip_points,
        verdict=_verdict(low, high, limit=max_flip_points),
    )


def better_than_chance(
    right_k: ClassIds, images_k: ClassIds, weight_n: npt.NDArray[np.float64], *, chance: float, error: float
) -> ReferenceAnswers:
    """Whether answers depend on the images: their mean recall over the kinds is proven to exceed that of chance.

    Kinds are the classes or, for multi-label, having and not having each label. Answers that do not depend on the
    image, such as the best constant one, have a mean recall of at most `1 / classes`, or one half, however unequal the
    kinds are: their probabilities of being right on each class, or on both kinds of a label, add up to 1. The mean
    recall is a sum over independent images, each of which moves it by `1 / (kinds * images of its kind)` for each of
    its kinds, so by Hoeffding's inequality a network at chance is called better with probability at most `error`.

    Sources: Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", 1963, theorem 2; the mean
    recall as in Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", 2010.

    Args:
        right_k: images of each kind that are answered as one of that kind.
        images_k: images of each kind, at least one.
        weight_n: for each image, the sum of 1 / images over its kinds.
        chance: highest mean recall of answers that do not depend on the image.
    """
    kinds = max(len(images_k), 1)
    recall = float((right_k / images_k).sum()) / kinds
    proof = chance + math.sqrt(-math.log(error) / 2 * float(np.square(weight_n / kinds).sum()))
    return ReferenceAnswers(
        kinds=len(images_k),
        recall_points=100 * recall,
        chance_points=100 * chance,
        proof_points=100 * proof,
        verdict=PASS if len(images_k) > 1 and recall >= proof else TOO_FEW,
    )


def _verdict(low: float, high: float, *, limit: float) -> AccuracyVerdict:
    return PASS if high <= limit else FAIL if low > limit else TOO_FEW


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


def flawless(class_ids: Sequence[tuple[int, ...]], labels: Sequence[str], spec: Spec) -> AccuracyResult:
    """The gate's result for an engine that answers every one of these test images right, as FP32 does."""
    truth = truth_of(class_ids, task=spec.task, classes=len(labels))
    return compare_answers(truth, truth, truth, labels, spec.accuracy)


def unproven(result: AccuracyResult) -> Iterator[str]:
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
