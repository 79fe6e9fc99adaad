"""The same page for a multi-label bundle: labels, reliability over all of them, and the surest wrong ones."""

from typing import Any, Literal

from slipway.contract import Bundle, SpecError
from slipway.pages.tables import Scale
from slipway.pages.thumbnails import Thumbnails
from slipway.report.evaluation.drawings import diagrams
from slipway.report.evaluation.evidence import BeforeAndAfter, Interval, Means, Worth
from slipway.report.evidence import Evidence

LABELS_SHOWN, MISTAKES_SHOWN = 100, 24


class LabelWorth(Evidence):
    """One label on the test split, with 95 % intervals, and its part of the decision."""

    images: int
    given: int
    ap: float | None
    ap_interval: Interval | None
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    f1_interval: Interval
    threshold: float
    slope: float
    offset: float


class LabelMistake(Evidence):
    """A label that is missing, or that should not be there."""

    image: str
    label: str
    kind: Literal["missing", "extra"]
    probability: float
    truth: tuple[str, ...]
    answer: tuple[str, ...]


class WithoutLabels(Evidence):
    """How many images, and answers, have none."""

    images: int
    answers: int


class LabelsWorth(Evidence):
    """`evaluation.json` of a multi-label bundle."""

    task: Literal["multilabel"]
    images: int
    map: float
    map_interval: Interval
    exact_match: float
    exact_match_interval: Interval
    macro: Means
    micro: Means
    per_class: dict[str, LabelWorth]
    reliability: BeforeAndAfter
    without_labels: WithoutLabels
    mistakes: tuple[LabelMistake, ...]


def context(bundle: Bundle, worth: LabelsWorth, thumbnails: Thumbnails) -> dict[str, Any]:
    """What `evaluation_labels.html` shows."""
    before, after = diagrams(worth.reliability.before, worth.reliability.after)
    rows = sorted(worth.per_class.items(), key=lambda item: (item[1].f1, item[0]))
    return {
        "title": f"{bundle.spec.name}: evaluation",
        "bundle": bundle,
        "worth": worth,
        "scale": Scale(0.0, 1.0, 0.5),
        "rows": rows[:LABELS_SHOWN],
        "before": before,
        "after": after,
        "policy_of_thresholds": bundle.spec.decision.thresholds,
        "mistakes": [(mistake, thumbnails.of(mistake.image)) for mistake in worth.mistakes[:MISTAKES_SHOWN]],
    }


def read_worth(bundle: Bundle) -> Worth | LabelsWorth:
    """By the bundle's task. Raises SpecError: the bundle has no evaluation, or one that an older release wrote."""
    path = bundle.path / "evaluation.json"
    try:
        return LabelsWorth.read(path) if bundle.decision.task == "multilabel" else Worth.read(path)
    except SpecError as error:
        raise SpecError(
            f"{error}\nan older release wrote this bundle, or it was never evaluated: export it again"
        ) from None
