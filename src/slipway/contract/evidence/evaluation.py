"""`evaluation.json` of a bundle and of an engine: what the answers on the test split show, for one label or many."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from slipway.contract.base import Evidence
from slipway.contract.decision import Score, Task
from slipway.contract.evidence.gate import GateResult
from slipway.errors import SpecError

EVALUATION = "evaluation.json"
Interval = tuple[float, float]
"""The exact or the bootstrapped 95 % interval."""
Cells = tuple[tuple[int, int, int], ...]
"""A confusion matrix: class, answer and how many images, where there are any."""


class Means(Evidence):
    """Means over the classes."""

    precision: float
    recall: float
    f1: float


class ClassFigures(Evidence):
    """One class on the test split."""

    images: int
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval


class LabelFigures(ClassFigures):
    """One label of a multi-label classifier, and in a bundle its part of the decision."""

    given: int
    """Images that got the label."""
    ap: float | None
    """The average precision; None where no image has the label."""
    ap_interval: Interval | None


class DecidedLabel(LabelFigures):
    """The same, with the label's part of the bundle's decision."""

    threshold: float
    slope: float
    offset: float


class Bin(Evidence):
    """Images of about one confidence."""

    images: int
    confidence: float
    accuracy: float
    accuracy_interval: Interval


class Reliability(Evidence):
    """Whether probabilities mean what they say: the expected calibration error, and the diagram behind it."""

    ece: float
    ece_interval: Interval
    bins: tuple[Bin, ...]


class BeforeAndAfter(Evidence):
    """Reliability without calibration, and as served."""

    before: Reliability
    after: Reliability


class Coverage(Evidence):
    """Share of images that is answered, and the accuracy of those answers."""

    score: Score
    curve: tuple[tuple[float, float], ...]


class Answered(Evidence):
    """What `unknown` does to one split."""

    images: int
    unknown_rate: float
    unknown_interval: Interval
    accuracy: float | None
    accuracy_interval: Interval


class ScoreFigures(Evidence):
    """How well one score tells known from unknown on the validation split; the first two are better when higher."""

    foreign_auroc: dict[str, float]
    """By kind of stand-in: how well the score tells validation images from it (0.5: not at all). `left_out` are the
    same images without their own class."""
    wrong_auroc: float | None
    """How well the score tells right answers from wrong ones; None where all are right, or all wrong."""
    aurc: float
    """The mean error over all coverages, from the most familiar image on (Geifman and El-Yaniv, "Selective
    Classification for Deep Neural Networks", 2017)."""


class ScoreChoice(Evidence):
    """How the score of `unknown` was chosen. Both are left out where the spec sets the threshold itself."""

    policy: dict[str, float | str] | None = None
    scores: dict[Score, ScoreFigures] = Field(default_factory=dict)


class UnknownFigures(ScoreChoice):
    """The threshold of `unknown`, and what it does."""

    score: Score
    threshold: float
    validation: Answered
    test: Answered


class Mistake(Evidence):
    """A wrong answer."""

    image: str
    truth: str
    truth_probability: float
    label: str
    score: float


class LabelMistake(Evidence):
    """A label that is missing, or that should not be there."""

    image: str
    label: str
    kind: Literal["missing", "extra"]
    probability: float
    truth: tuple[str, ...]
    answer: tuple[str, ...]


class WithoutLabels(Evidence):
    """How many images, and how many answers, have no label at all."""

    images: int
    answers: int


class Flip(Evidence):
    """A test image whose answer is not FP32's. All of several labels are named, and the least sure one's score stands
    for them."""

    image: str
    truth: str
    fp32: str
    fp32_score: float
    label: str
    score: float

    @property
    def effect(self) -> Literal["lost", "gained", "wrong"]:
        """`wrong` is both times."""
        return "lost" if self.fp32 == self.truth else "gained" if self.label == self.truth else "wrong"


class PrimaryMetrics(Evidence):
    """What is said first: top-1 of one label an image; mAP and exact match of several."""

    images: int
    top1: float | None = None
    map: float | None = None
    exact_match: float | None = None
    """The share of images with all of their labels and no other."""
    macro_f1: float
    ece: float

    @property
    def primary_metrics(self) -> str:
        if self.top1 is not None:
            return f"top-1 {self.top1:.2%}"
        return f"mAP {self.map or 0:.4f}, all labels right {self.exact_match or 0:.2%}"


class Metrics(PrimaryMetrics):
    """The same, with every class."""

    macro: Means
    per_class: Mapping[str, ClassFigures]


class ClassMetrics(Metrics):
    """One label an image."""

    top1: float
    top1_interval: Interval
    top_k: dict[str, float]
    weighted: Means
    """By the images of each class."""
    confusion: Cells


class LabelMetrics(Metrics):
    """Any number of labels an image."""

    task: Literal["multilabel"]
    map: float
    map_interval: Interval
    exact_match: float
    exact_match_interval: Interval
    micro: Means
    """All labels counted together."""
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
    """The surest first."""

    @property
    def wrong(self) -> int:
        return round(self.images * (1 - self.top1))


class LabelBundleEvaluation(LabelMetrics, _OfBundle):
    """`evaluation.json` of a multi-label bundle."""

    per_class: Mapping[str, DecidedLabel]
    without_labels: WithoutLabels
    mistakes: tuple[LabelMistake, ...]
    """The surest first."""


class _OfEngine(Evidence):
    split: Literal["test"]
    arithmetic: str
    decoder: str
    unknown_rate: float | None = None
    gate: GateResult | None = None
    """None for FP32, which is what the others are compared with."""
    flips: tuple[Flip, ...] = ()


class EngineEvaluation(ClassMetrics, _OfEngine):
    """`evaluation.json` of an engine."""

    unknown_rate: float


class LabelEngineEvaluation(LabelMetrics, _OfEngine):
    """`evaluation.json` of a multi-label engine."""


AnyBundleEvaluation = BundleEvaluation | LabelBundleEvaluation
AnyEngineEvaluation = EngineEvaluation | LabelEngineEvaluation


def read_bundle_evaluation(bundle: Path, *, task: Task) -> AnyBundleEvaluation:
    """Raises SpecError: the bundle has no evaluation, or one that another release wrote."""
    try:
        return (LabelBundleEvaluation if task == "multilabel" else BundleEvaluation).read(bundle / EVALUATION)
    except SpecError as error:
        raise SpecError(
            f"{error}\nan older release wrote this bundle, or it was never evaluated: export it again"
        ) from None


def read_engine_evaluation(engine: Path, *, task: Task) -> AnyEngineEvaluation:
    """Raises SpecError: the engine has no evaluation, or one that another release wrote."""
    try:
        return (LabelEngineEvaluation if task == "multilabel" else EngineEvaluation).read(engine / EVALUATION)
    except SpecError as error:
        raise SpecError(f"{error}\nan older release wrote this engine: compile it again") from None
