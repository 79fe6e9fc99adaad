"""What the page reads of a bundle's `evaluation.json`."""

from pydantic import Field

from slipway.report.evidence import Evidence

Interval = tuple[float, float]


class ClassWorth(Evidence):
    """One class on the test split, with 95 % intervals."""

    images: int
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval


class Means(Evidence):
    """Over the classes."""

    precision: float
    recall: float
    f1: float


class Bin(Evidence):
    """Images of about one confidence."""

    images: int
    confidence: float
    accuracy: float
    accuracy_interval: Interval


class Reliability(Evidence):
    """Whether probabilities mean what they say."""

    ece: float
    ece_interval: Interval
    bins: tuple[Bin, ...]


class BeforeAndAfter(Evidence):
    """At temperature 1, and as served."""

    before: Reliability
    after: Reliability


class Coverage(Evidence):
    """Share of images that is answered, and the accuracy of those answers."""

    score: str
    curve: tuple[tuple[float, float], ...]


class Answered(Evidence):
    """What `unknown` does to one split."""

    images: int
    unknown_rate: float
    unknown_interval: Interval
    accuracy: float | None
    accuracy_interval: Interval


class ScoreWorth(Evidence):
    """How well one score tells known from unknown, on the validation split."""

    foreign_auroc: dict[str, float]
    wrong_auroc: float | None
    aurc: float


class Unknown(Evidence):
    """The threshold of `unknown`, and the choice of its score."""

    score: str
    threshold: float
    policy: dict[str, float | str] | None = None
    scores: dict[str, ScoreWorth] = Field(default_factory=dict)
    validation: Answered
    test: Answered


class Mistake(Evidence):
    """A wrong answer."""

    image: str
    truth: str
    truth_probability: float
    label: str
    score: float


class Worth(Evidence):
    """`evaluation.json` of a bundle."""

    images: int
    top1: float
    top1_interval: Interval
    top_k: dict[str, float]
    macro: Means
    weighted: Means
    per_class: dict[str, ClassWorth]
    confusion: tuple[tuple[int, int, int], ...]
    """Class, answer and how many images, where there are any."""
    temperature: float
    reliability: BeforeAndAfter
    coverage: Coverage
    unknown: Unknown | None = None
    mistakes: tuple[Mistake, ...]

    @property
    def wrong(self) -> int:
        return round(self.images * (1 - self.top1))
