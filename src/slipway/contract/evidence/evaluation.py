"""`evaluation.json` of a bundle and of an engine: results on the test split, for one label per image or many."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from slipway.contract.decision import Score, Task
from slipway.contract.evidence.gate import AccuracyResult
from slipway.contract.typed_file import Evidence
from slipway.errors import SpecError

EVALUATION = "evaluation.json"
Interval = tuple[float, float]
"""Exact or bootstrapped 95 % interval."""
Cells = tuple[tuple[int, int, int], ...]
"""Nonzero cells of a confusion matrix: class, answer and number of images."""


class Means(Evidence):
    """Means over the classes."""

    precision: float
    recall: float
    f1: float


class ClassFigures(Evidence):
    """Results of one class on the test split."""

    images: int
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval


class LabelFigures(ClassFigures):
    """Results of one label of a multi-label classifier."""

    given: int
    """Number of images that were given the label."""
    ap: float | None
    """Average precision; None if no image has the label."""
    ap_interval: Interval | None


class DecidedLabel(LabelFigures):
    """Results of one label, with its part of the bundle's decision."""

    threshold: float
    slope: float
    offset: float


class Bin(Evidence):
    """Images of similar confidence."""

    images: int
    confidence: float
    accuracy: float
    accuracy_interval: Interval


class Reliability(Evidence):
    """Reliability of the probabilities: expected calibration error, and the bins of its diagram."""

    ece: float
    ece_interval: Interval
    bins: tuple[Bin, ...]


class BeforeAndAfter(Evidence):
    """Reliability before calibration and as served."""

    before: Reliability
    after: Reliability


class Coverage(Evidence):
    """Share of images answered, and the accuracy of those answers."""

    score: Score
    curve: tuple[tuple[float, float], ...]


class UnknownEffect(Evidence):
    """Effect of `unknown` on one split."""

    images: int
    unknown_rate: float
    unknown_interval: Interval
    accuracy: float | None
    accuracy_interval: Interval


class ScoreFigures(Evidence):
    """Figures of how well one score separates known from unknown images on the validation split."""

    foreign_auroc: dict[str, float]
    """AUROC of validation images against each kind of stand-in (0.5: no separation). `left_out` are the same images
    without their own class."""
    wrong_auroc: float | None
    """AUROC of right answers against wrong ones; None if all are right or all are wrong."""
    aurc: float
    """Mean error over all coverages, most familiar image first; lower is better (Geifman and El-Yaniv, "Selective
    Classification for Deep Neural Networks", 2017)."""


class ScoreChoice(Evidence):
    """Evidence on the choice of the score of `unknown`. Both fields are absent if the spec sets the threshold
    itself."""

    policy: dict[str, float | str] | None = None
    scores: dict[Score, ScoreFigures] = Field(default_factory=dict)


class UnknownFigures(ScoreChoice):
    """The threshold of `unknown` and its effect."""

    score: Score
    threshold: float
    validation: UnknownEffect
    test: UnknownEffect


class Mistake(Evidence):
    """A wrong answer."""

    image: str
    truth: str
    truth_probability: float
    label: str
    score: float


class LabelMistake(Evidence):
    """A missing label, or one that should not be there."""

    image: str
    label: str
    kind: Literal["missing", "extra"]
    probability: float
    truth: tuple[str, ...]
    answer: tuple[str, ...]


class WithoutLabels(Evidence):
    """Numbers of images and of answers without any label."""

    images: int
    answers: int


class Flip(Evidence):
    """A test image answered differently from FP32. For several labels, all are named and the score is the least one."""

    image: str
    truth: str
    fp32: str
    fp32_score: float
    label: str
    score: float

    @property
    def effect(self) -> Literal["lost", "gained", "wrong"]:
        """Effect on correctness; `wrong` means both answers are wrong."""
        return "lost" if self.fp32 == self.truth else "gained" if self.label == self.truth else "wrong"


class PrimaryMetrics(Evidence):
    """Primary figures: top-1 for one label per image; mAP and exact match for several."""

    images: int
    top1: float | None = None
    map: float | None = None
    exact_match: float | None = None
    """Share of images given all of their labels and no other."""
    macro_f1: float
    ece: float

    @property
    def primary_metrics(self) -> str:
        if self.top1 is not None:
            return f"top-1 {self.top1:.2%}"
        return f"mAP {self.map or 0:.4f}, all labels right {self.exact_match or 0:.2%}"


class Metrics(PrimaryMetrics):
    """Primary figures, with every class."""

    macro: Means
    per_class: Mapping[str, ClassFigures]


class ClassMetrics(Metrics):
    """Results for one label per image."""

    top1: float
    top1_interval: Interval
    top_k: dict[str, float]
    weighted: Means
    """Means weighted by the number of images of each class."""
    confusion: Cells


class LabelMetrics(Metrics):
    """Results for any number of labels per image."""

    task: Literal["multilabel"]
    map: float
    map_interval: Interval
    exact_match: float
    exact_match_interval: Interval
    micro: Means
    """Means over all labels counted together."""
    per_class: Mapping[str, LabelFigures]


class _OfBundle(Evidence):
    split: Literal["test"]
    arithmetic: Literal["f32"]
    ece_uncalibrated: float
    reliability: BeforeAndAfter


class BundleEvaluation(ClassMetrics, _OfBundle):
    """`evaluation.json` of a bundle."""

    temperature: float
    coverage: Coverage
    unknown: UnknownFigures | None = None
    mistakes: tuple[Mistake, ...]
    """Wrong answers, most confident first."""

    @property
    def wrong(self) -> int:
        return round(self.images * (1 - self.top1))


class LabelBundleEvaluation(LabelMetrics, _OfBundle):
    """`evaluation.json` of a multi-label bundle."""

    per_class: Mapping[str, DecidedLabel]
    without_labels: WithoutLabels
    mistakes: tuple[LabelMistake, ...]
    """Wrong labels, most confident first."""


class Conditions(Evidence):
    """How the outputs of an engine were computed."""

    arithmetic: str
    decoder: str
    profile: Literal["batches", "single images"] | None = None
    """The optimisation profile that all figures are of, where a plan has one for each: that with the worse verdict."""


class _OfEngine(Conditions):
    split: Literal["test"]
    unknown_rate: float | None = None
    gate: AccuracyResult | None = None
    """Result of the accuracy gate; None for FP32, the reference."""
    flips: tuple[Flip, ...] = ()


class EngineEvaluation(ClassMetrics, _OfEngine):
    """`evaluation.json` of an engine."""

    unknown_rate: float


class LabelEngineEvaluation(LabelMetrics, _OfEngine):
    """`evaluation.json` of a multi-label engine."""


AnyBundleEvaluation = BundleEvaluation | LabelBundleEvaluation
AnyEngineEvaluation = EngineEvaluation | LabelEngineEvaluation


def read_bundle_evaluation(bundle: Path, *, task: Task) -> AnyBundleEvaluation:
    """Raises SpecError: the bundle's evaluation is missing, or another release wrote it."""
    try:
        return (LabelBundleEvaluation if task == "multilabel" else BundleEvaluation).read(bundle / EVALUATION)
    except SpecError as error:
        raise SpecError(
            f"{error}\nan older release wrote this bundle, or it was never evaluated: export it again"
        ) from None


def read_engine_evaluation(engine: Path, *, task: Task) -> AnyEngineEvaluation:
    """Raises SpecError: the engine's evaluation is missing, or another release wrote it."""
    try:
        return (LabelEngineEvaluation if task == "multilabel" else EngineEvaluation).read(engine / EVALUATION)
    except SpecError as error:
        raise SpecError(f"{error}\nan older release wrote this engine: compile it again") from None
