"""The accuracy gate: what a precision loses against FP32 on the same images, and whether that is proven."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from slipway.contract.spec import AccuracyGate
from slipway.evaluation.intervals import share_interval

PASS, FAIL, TOO_FEW = "pass", "fail", "too few images to tell"
ClassIds = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]
Table = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """Loss of right answers in percentage points on one set of images, its exact interval, and the verdict."""

    images: int
    lost: int
    """Right in FP32 and wrong here."""
    gained: int
    """Wrong in FP32 and right here."""
    loss_points: float
    loss_low_points: float
    loss_high_points: float
    max_loss_points: float
    verdict: str

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.loss_points:+.2f} points lost ({self.lost} lost, {self.gained} gained of "
            f"{self.images}), between {self.loss_low_points:+.2f} and {self.loss_high_points:+.2f}, "
            f"limit {self.max_loss_points:g}"
        )


@dataclass(frozen=True)
class GateResult:
    """The verdict on one engine: on all images together, and on each class's recall."""

    verdict: str
    overall: Comparison
    classes: dict[str, Comparison]
    confidence: float
    prove_classes: bool
    unit: str = "top-1"
    """What is right of an image: its answer, or `all labels`."""

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Self:
        """From `asdict`, as an engine's manifest keeps it."""
        classes = {label: Comparison(**result) for label, result in evidence["classes"].items()}
        return cls(**{**evidence, "overall": Comparison(**evidence["overall"]), "classes": classes})

    @property
    def reasons(self) -> list[str]:
        """Every comparison that stands in the way of `pass`; empty for a pass."""
        reasons = [f"{self.unit}: {self.overall}"] if self.overall.verdict != PASS else []
        hindering = (label for label, result in self.classes.items() if not _tolerated(result, self.prove_classes))
        return reasons + [f"class {label}: {self.classes[label]}" for label in hindering]

    def __str__(self) -> str:
        unproven = sum(result.verdict == TOO_FEW for result in self.classes.values())
        worst = max(self.classes.items(), key=lambda item: item[1].loss_points, default=None)
        text = f"{self.verdict} at {self.confidence:.0%}; {self.unit} {self.overall}"
        if worst is not None:
            text += f"; worst class {worst[0]}: {worst[1].loss_points:+.2f} points of {worst[1].images} images"
        if unproven and not self.prove_classes:
            text += f", measured ({unproven} of {len(self.classes)} classes have too few images to prove their limit)"
        return text


def compare(
    truth_n: ClassIds, reference_n: ClassIds, candidate_n: ClassIds, labels: Sequence[str], gate: AccuracyGate
) -> GateResult:
    """Paired comparison of two classifiers on the same images.

    The loss is P(lost) - P(gained), over all images and over each class's own (that is its loss of recall). Each share
    has an exact one-sided Clopper-Pearson bound at half the error probability, so their difference bounds the loss at
    `confidence` (Bonferroni); over the classes the error probability is divided by their number once more, so that all
    classes together pass or fail by chance as seldom as one would. `pass`: the upper bound is within the limit;
    `fail`: the lower bound is over it; otherwise these images cannot tell.

    Args:
        truth_n: class ids of the images.
        reference_n: class ids that FP32 answered, -1 for no class.
        candidate_n: the same for the engine under test.
    """
    before_n, after_n = reference_n == truth_n, candidate_n == truth_n
    present = [class_id for class_id in range(len(labels)) if (truth_n == class_id).any()]
    of_class = {class_id: truth_n == class_id for class_id in present}
    classes = {labels[c]: (before_n[own_n], after_n[own_n]) for c, own_n in of_class.items()}
    return _judge(before_n, after_n, classes, gate)


def compare_labels(
    truth_nc: Table, reference_nc: Table, candidate_nc: Table, labels: Sequence[str], gate: AccuracyGate
) -> GateResult:
    """The same for multi-label, `[n, classes]` each: an image is right when it has all of its labels and no other, a
    class on the images that have it when it is given."""
    before_n, after_n = ((answered_nc == truth_nc).all(axis=1) for answered_nc in (reference_nc, candidate_nc))
    classes = {
        label: (reference_nc[own_n, class_id], candidate_nc[own_n, class_id])
        for class_id, (label, own_n) in enumerate(zip(labels, truth_nc.T, strict=True))
        if own_n.any()
    }
    return _judge(before_n, after_n, classes, gate, unit="all labels")


def _judge(
    before_n: Right,
    after_n: Right,
    of_class: Mapping[str, tuple[Right, Right]],
    gate: AccuracyGate,
    *,
    unit: str = "top-1",
) -> GateResult:
    overall = compare_pairs(before_n, after_n, max_loss_points=gate.max_loss_points, confidence=gate.confidence)
    classes = {
        label: compare_pairs(
            before_of_class,
            after_of_class,
            max_loss_points=gate.max_class_loss_points,
            confidence=1 - (1 - gate.confidence) / len(of_class),
        )
        for label, (before_of_class, after_of_class) in of_class.items()
    }
    hindering = [result.verdict for result in classes.values() if not _tolerated(result, gate.prove_classes)]
    verdicts = {overall.verdict, *hindering}
    return GateResult(
        verdict=FAIL if FAIL in verdicts else TOO_FEW if TOO_FEW in verdicts else PASS,
        overall=overall,
        classes=classes,
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
        verdict=PASS if high <= max_loss_points else FAIL if low > max_loss_points else TOO_FEW,
    )


def _tolerated(result: Comparison, prove_classes: bool) -> bool:
    """Whether a class leaves `pass` possible: proven, or measured within its limit where the spec allows that."""
    if result.verdict == TOO_FEW and not prove_classes:
        return result.loss_points <= result.max_loss_points
    return result.verdict == PASS
