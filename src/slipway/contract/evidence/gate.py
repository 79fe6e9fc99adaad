"""The accuracy gate's result: an engine's loss against FP32 on the same images, and whether it is proven."""

from typing import Final, Literal

from pydantic import ConfigDict

from slipway.contract.typed_file import Contract, Evidence

PASS: Final = "pass"
FAIL: Final = "fail"
TOO_FEW: Final = "too few images to tell"
REFERENCE: Final = "reference"
PROOF: Final = "proof only"
AccuracyVerdict = Literal["pass", "fail", "too few images to tell"]
Unit = Literal["top-1", "all labels"]
FILE_NAME = "old_test.json"


class Comparison(Contract):
    """Right answers lost on one set of images in percentage points, with the exact interval and the verdict."""

    images: int
    lost: int
    """Images that FP32 answers right and the engine wrong."""
    gained: int
    """Images that FP32 answers wrong and the engine right."""
    loss_points: float
    loss_low_points: float
    loss_high_points: float
    max_loss_points: float
    verdict: AccuracyVerdict

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.loss_points:+.2f} points lost ({self.lost} lost, {self.gained} gained of "
            f"{self.images}), between {self.loss_low_points:+.2f} and {self.loss_high_points:+.2f}, "
            f"limit {self.max_loss_points:g}"
        )


class Flips(Contract):
    """Images answered differently from FP32, right or wrong, in percentage points, with the verdict."""

    images: int
    flips: int
    flip_points: float
    flip_low_points: float
    flip_high_points: float
    max_flip_points: float
    verdict: AccuracyVerdict

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.flip_points:.2f} points flipped ({self.flips} of {self.images}), between "
            f"{self.flip_low_points:.2f} and {self.flip_high_points:.2f}, limit {self.max_flip_points:g}"
        )


class ReferenceAnswers(Contract):
    """Whether FP32 itself is proven better than chance. A network at chance has nothing to lose."""

    kinds: int
    """Number of classes among the images; for multi-label, two per label: images with it and images without it."""
    recall_points: float
    """Mean recall of FP32 over the kinds, in percentage points."""
    chance_points: float
    """Highest mean recall of answers that do not depend on the image, in percentage points."""
    proof_points: float
    """Lowest mean recall that these images accept as proof, in percentage points."""
    verdict: AccuracyVerdict

    def __str__(self) -> str:
        return (
            f"{self.verdict}: mean recall {self.recall_points:.2f} points over {self.kinds} kinds of images, chance "
            f"{self.chance_points:.2f}, proof takes {self.proof_points:.2f}"
        )


class AccuracyResult(Contract):
    """The verdict on one engine: on all images, each class's recall, flips, and the reference."""

    verdict: AccuracyVerdict
    overall: Comparison
    classes: dict[str, Comparison]
    flips: Flips
    reference: ReferenceAnswers
    confidence: float
    prove_classes: bool
    unit: Unit = "top-1"
    """Criterion for a right image: its answer, or all of its labels."""

    @property
    def hindering(self) -> dict[str, Comparison]:
        """The classes that prevent a pass."""
        return _hindering(self.classes, prove=self.prove_classes)

    @property
    def reasons(self) -> list[str]:
        """Every comparison that prevents a pass; empty for a pass."""
        parts = ((self.unit, self.overall), ("flips", self.flips), ("FP32 itself", self.reference))
        reasons = [f"{name}: {part}" for name, part in parts if part.verdict != PASS]
        return reasons + [f"class {label}: {result}" for label, result in self.hindering.items()]

    def __str__(self) -> str:
        unproven = sum(result.verdict == TOO_FEW for result in self.classes.values())
        worst = max(self.classes.items(), key=lambda item: item[1].loss_points, default=None)
        text = f"{self.verdict} at {self.confidence:.0%}; {self.unit} {self.overall}; flips {self.flips}"
        if self.reference.verdict != PASS:
            text += f"; FP32 itself {self.reference}"
        if worst is not None:
            text += f"; worst class {worst[0]}: {worst[1].loss_points:+.2f} points of {worst[1].images} images"
        if unproven and not self.prove_classes:
            text += f", measured ({unproven} of {len(self.classes)} classes have too few images to prove their limit)"
        return text


def tolerated(result: Comparison, *, prove: bool) -> bool:
    """Whether a class allows a pass: proven within its limit or, without `prove`, measured within it."""
    if result.verdict == TOO_FEW and not prove:
        return result.loss_points <= result.max_loss_points
    return result.verdict == PASS


def _hindering(classes: dict[str, Comparison], *, prove: bool) -> dict[str, Comparison]:
    return {label: result for label, result in classes.items() if not tolerated(result, prove=prove)}


class Ungated(Contract):
    """An engine without a comparison: FP32 itself, or a plan that only proves that its graph compiles."""

    verdict: Literal["reference", "proof only"]

    def __str__(self) -> str:
        return "the reference" if self.verdict == REFERENCE else self.verdict


class _Verdict(Contract):
    model_config = ConfigDict(extra="ignore")

    verdict: str = "not gated"


class Gated(Evidence):
    """The part of any engine's measurements that says whether it may be served."""

    model_config = ConfigDict(extra="ignore")

    gate: _Verdict = _Verdict()


class OldTest(Contract):
    """The answers of both runs' served engines to the old test images, compared in pairs."""

    old_bundle: str
    bundle: str
    old_engine_sha256: str
    """Hash of the manifest of the engine whose answers are compared."""
    engine_sha256: str
    overall: Comparison
    classes: dict[str, Comparison]
    prove_classes: bool

    @property
    def hindering(self) -> dict[str, Comparison]:
        """The classes that prevent a pass."""
        return _hindering(self.classes, prove=self.prove_classes)

    @property
    def verdict(self) -> AccuracyVerdict:
        verdicts = {self.overall.verdict, *(result.verdict for result in self.hindering.values())}
        return FAIL if FAIL in verdicts else TOO_FEW if verdicts - {PASS} else PASS

    def lines(self) -> list[str]:
        hindering = [f"  class {label}: {result}" for label, result in self.hindering.items()]
        return [f"old test split: {self.overall}", *hindering]
