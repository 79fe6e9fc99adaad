"""Accuracy of all rows from the labels of a few that were chosen with known probabilities.

Every row has a confidence f, and each labelled one the truth. The estimate is mean(f) + mean((correct - f) ξ / π) with
ξ = 1 where a row was chosen, with probability π. Its expectation is the accuracy, however good f is, since E ξ = π;
a good f makes it exact. Sources: Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Prediction-powered inference
(Science 382, 2023); Zrnic and Candès, Active statistical inference (ICML 2024); Horvitz and Thompson (JASA 47, 1952)
for 1 / π.

The interval is that of Korn and Graubard (Survey Methodology 24, 1998), the binomial one for as many labels as would
have the estimate's variance, by the mid-P instead of Clopper and Pearson's probability, which is wider than its 95 %
asks. Student's interval covers 81 to 86 % with 200 labels where under 1 % of the answers are wrong.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from slipway.contract.typed_file import Contract, Evidence
from slipway.errors import DataError, requiring
from slipway.operations.watch.rows import Floats, Ints

with requiring("scipy", extra="operate"):
    from scipy.optimize import brentq
    from scipy.special import betainc, betaincc, betaincinv, ndtri, stdtrit

CONFIDENCE = 0.95
_SHARES = 400
"""Intervals of possible shares that are looked at."""
MOST_PER_LABEL = 2.0
"""Most independent labels that a label may count for. Without it, a few right answers among sure ones would hide that
the estimate's variance is itself estimated from few."""


@dataclass(frozen=True)
class LabelledAnswers:
    """Rows of one period, with the labels of those that were chosen.

    Raises:
        DataError: columns differ in length, or a probability is not in (0, 1].
    """

    confidence: Floats
    """Calibrated probability of the predicted class; a value that is not finite counts as ½."""
    class_id: Ints
    """Predicted class; -1 is `unknown`, which is never correct."""
    probability: Floats
    """Probability with which the row was chosen for a label."""
    labelled: npt.NDArray[np.bool_]
    truth: Ints
    """True class where `labelled`; anything elsewhere. It may be a class that the bundle does not know."""

    def __post_init__(self) -> None:
        shapes = {name: column.shape for name, column in vars(self).items()}
        if len(set(shapes.values())) != 1 or self.class_id.ndim != 1:
            raise DataError(f"columns of the shapes {shapes}; give five one-dimensional columns of equal length")
        if not ((self.probability > 0) & (self.probability <= 1)).all():
            raise DataError("a probability that is not over 0 and at most 1; give every row the one it was chosen with")


class Estimate(Evidence):
    """A share between 0 and 1, and an interval that holds it with 95 % probability."""

    value: float
    low: float
    high: float
    labels: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


class ClassAccuracy(Evidence):
    class_id: int
    precision: Estimate | None
    """Share of right answers among the rows predicted as this class; None if no such row has a label."""
    recall: Estimate | None
    """Share of right answers among the rows of this class; None if no label says this class."""
    alarm: bool
    """Whether the recall is shown to be lower than the reference's by more than the tolerance."""
    known: bool
    """Whether the reference has this class."""


class LiveAccuracy(Evidence):
    rows: int
    labels: int
    overall: Estimate | None
    """None without a label: confidence alone is not an estimate."""
    mean_confidence: float | None
    classes: tuple[ClassAccuracy, ...]


class RecallReference(Contract):
    """Recall of each class on the test split, and how much of it may be lost."""

    recall: dict[int, float]
    images: dict[int, int]
    """Images of each of these classes: a recall is known only as well as their number allows."""
    points: float = Field(default=2.0, ge=0)
    """Loss of recall tolerated without an alarm, in percentage points."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of a false alarm in one reading, over all classes together and over the draw of the test split."""

    def is_lost(self, class_id: int, live: "Weighed") -> bool:
        """Whether the recall of a class is shown to be lower by more than `points`."""
        share = self.alpha / max(len(self.recall), 1)
        known = self.recall[class_id], self.images[class_id]
        return is_lower(live, share=known[0], images=known[1], drop=self.points / 100, error=share)


@dataclass(frozen=True)
class Weighed:
    """A share of right answers, and the number of independent labels that would tell as much."""

    value: float
    effective: float


def is_lower(live: Weighed, *, share: float, images: int, drop: float, error: float) -> bool:
    """Whether a live share is shown to be more than `drop` under one that was measured on so many images.

    For each possible true share r of the measured one, two probabilities count: p, that a measurement is as high as it
    was, and q, that labels are as low as they are where the live share is r - drop. They are independent, so that √p q
    is at most c with a probability of 2 c - c² (Good, Journal of the Royal Statistical Society B 17, 1955, with weights
    of ½ and 1). No r may make it larger. To ask that two bounds lie apart, each with half of the error, is stricter:
    both would have to be unlucky at once. The smaller weight is that of the measurement, which has more images.

    Args:
        error: probability of a wrong yes.
    """
    if live.value >= share - drop:
        return False
    right, edges = round(share * images), np.append(0.0, np.linspace(live.value + drop, 1, _SHARES))
    low, high = edges[:-1] - drop, edges[1:]  # of each interval, the end at which a probability is larger
    measured = betainc(right, images - right + 1, high)
    few = live.value * live.effective
    labelled = betaincc(few + 1, live.effective - few, np.clip(low, 0, 1))
    return bool((np.sqrt(measured) * labelled).max() <= 1 - np.sqrt(1 - error))


def least(share: float, *, images: int, error: float) -> float:
    """Lower bound on a share that was measured on so many images, too high with at most this probability.

    Source: Clopper and Pearson (Biometrika 26, 1934).
    """
    right = round(share * images)
    return float(betaincinv(right, images - right + 1, error)) if right > 0 else 0.0


def accuracy_of(answers: LabelledAnswers, *, reference: RecallReference) -> LiveAccuracy:
    """Estimate the accuracy overall and by class, at one time.

    The intervals and alarms hold for one reading of a period. A class of the reference without a label is listed, with
    None: that it has disappeared is the drift detectors' to tell.
    """
    rows, labelled = len(answers.class_id), answers.labelled
    seen = set(answers.truth[labelled].tolist()) | set(answers.class_id[labelled].tolist()) | set(reference.recall)
    classes = tuple(_class(answers, id_, reference) for id_ in sorted(seen - {-1}))
    return LiveAccuracy(
        rows=rows,
        labels=int(labelled.sum()),
        overall=_powered(answers, np.ones(rows, dtype=bool)),
        mean_confidence=float(_confidence(answers.confidence).mean()) if rows else None,
        classes=classes,
    )


def korn_graubard(value: float, variance: float, *, labels: int, most: float) -> tuple[float, float]:
    """Return the 95 % interval of a share that was estimated with this variance from `labels` labels.

    The effective number of labels is value (1 - value) / variance, less what Student's t asks for few labels, and at
    most `most`; with no variance seen it is `labels`.
    """
    error = (1 - CONFIDENCE) / 2
    effective = _effective(value, variance, labels=labels, most=most)
    right = value * effective
    low = _mid_p_least(right, effective - right, error=error)
    return low, 1 - _mid_p_least(effective - right, right, error=error)


def _effective(value: float, variance: float, *, labels: int, most: float) -> float:
    if variance <= 0 or not 0 < value < 1:
        return min(float(labels), most)
    error = (1 - CONFIDENCE) / 2
    student = float(stdtrit(labels - 1, 1 - error)) if labels > 1 else np.inf
    shrunk = value * (1 - value) / variance * (float(ndtri(1 - error)) / student) ** 2
    return min(max(shrunk, 1.0), most)


def _mid_p_least(right: float, wrong: float, *, error: float) -> float:
    """Lower bound on a share: there, more right answers have the probability `error`, as many counting half.

    Source: Lancaster (Journal of the American Statistical Association 56, 1961).
    """
    if right <= 0:
        return 0.0
    if wrong <= 0:
        return float((2 * error) ** (1 / right))

    def beyond(share: float) -> float:
        return float(betainc(right, wrong + 1, share) + betainc(right + 1, wrong, share)) / 2 - error

    return float(brentq(beyond, 0, 1))


def _confidence(given: Floats) -> Floats:
    return np.where(np.isfinite(given), np.clip(given, 0, 1), 0.5)


def _powered(answers: LabelledAnswers, among: npt.NDArray[np.bool_]) -> Estimate | None:
    """The prediction-powered share of right answers among some rows."""
    chosen, rows = answers.labelled, int(among.sum())
    labels = int((chosen & among).sum())
    if not labels:
        return None
    confidence, probability = _confidence(answers.confidence), answers.probability[chosen]
    correct = (answers.class_id == answers.truth).astype(np.float64)
    errors = np.where(among, correct - confidence, 0.0)[chosen] / probability
    value = float(np.clip((confidence[among].sum() + errors.sum()) / rows, 0, 1))
    variance = _variance(errors, probability) / rows**2 + value * (1 - value) / rows
    low, high = korn_graubard(value, variance, labels=labels, most=min(MOST_PER_LABEL * labels, float(rows)))
    return Estimate(value=value, low=low, high=high, labels=labels)


def _variance(weighed: Floats, probability: Floats) -> float:
    """Variance of the sum of the labelled rows' values over their probabilities, by the choice of the rows.

    The number of labels was fixed, so that only what differs from their mean varies (Hájek, Annals of Mathematical
    Statistics 35, 1964). Rows of several selections count as one: this is at least the sum of their variances.
    """
    spread = 1 - probability
    if not spread.any():
        return 0.0
    mean = float((spread * weighed).sum() / spread.sum())
    return float((spread * (weighed - mean) ** 2).sum()) * weighed.size / max(weighed.size - 1, 1)


def _class(answers: LabelledAnswers, class_id: int, reference: RecallReference) -> ClassAccuracy:
    among = answers.labelled & (answers.truth == class_id)
    known = class_id in reference.recall
    recall, alarm = None, False
    if among.any():
        weights = 1 / answers.probability[among]
        correct = (answers.class_id[among] == class_id).astype(np.float64)
        recall, live = _weighted(correct, weights)
        alarm = known and reference.is_lost(class_id, live)
    return ClassAccuracy(
        class_id=class_id,
        precision=_powered(answers, answers.class_id == class_id),
        recall=recall,
        alarm=alarm,
        known=known,
    )


def _weighted(correct: Floats, weights: Floats) -> tuple[Estimate, Weighed]:
    """The weighted share of right answers among the labelled rows of a class, and how much it tells.

    The share is a ratio of two weighted sums (Hájek, 1971), with the variance of its linearisation. A label counts for
    at most one: the rows of a class are too few to trust more.
    """
    labels, total = correct.size, float(weights.sum())
    value = float((weights * correct).sum()) / total
    variance = float((weights**2 * (correct - value) ** 2).sum()) / total**2
    kish = total**2 / float((weights**2).sum())
    most = float(labels) if 0 < value < 1 else kish
    low, high = korn_graubard(value, variance, labels=labels, most=most)
    weighed = Weighed(value, _effective(value, variance, labels=labels, most=most))
    return Estimate(value=value, low=low, high=high, labels=labels), weighed
