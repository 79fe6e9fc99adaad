"""Simulates streams whose accuracy is known, and compares the estimate from a few labels with it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.contract.evidence.studies import Part
from slipway.operations.labels.select import SelectSettings, select
from slipway.operations.watch.accuracy import LabelledAnswers, RecallReference, accuracy_of
from slipway.operations.watch.rows import Rows

CLASSES = 10
NEW = CLASSES
"""Id of the class that the network does not know."""
ROWS = 5000
TEST_IMAGES = 1000
"""Images of each class in the test split."""
TRUE_RECALL_OF_LOST = 0.6
COVERED, HALF_WIDTH, LABELS = 0.93, 0.04, 200
"""Bars: least share of the intervals that hold the accuracy, and largest half-width with at least this many labels."""


@dataclass(frozen=True)
class Stream:
    """Confidences are beta variates; a known image is right with the probability that its confidence says."""

    name: str
    labels: int = LABELS
    known: tuple[float, float] = (30, 0.25)
    new_share: float = 0.0
    new: tuple[float, float] = (4, 2)
    over_confident: float = 0.0
    """The confidence less the probability of a right answer. It is 0 for a calibrated network."""
    lost_class: bool = False
    """Whether class 0 has a recall of 0.6, with confidences as before."""

    def answers(self, rng: np.random.Generator, seed: int) -> tuple[LabelledAnswers, npt.NDArray[np.bool_]]:
        """Draw rows with labels, and the right ones among them (a truth that only the study knows)."""
        truth = rng.integers(0, CLASSES, ROWS)
        new = rng.random(ROWS) < self.new_share
        truth[new] = NEW
        confidence = np.where(new, rng.beta(*self.new, ROWS), rng.beta(*self.known, ROWS))
        chance = np.where(new, 0.0, np.clip(confidence - self.over_confident, 0, 1))
        if self.lost_class:
            chance[truth == 0] = TRUE_RECALL_OF_LOST
        right = rng.random(ROWS) < chance
        wrong = (truth + 1 + rng.integers(0, CLASSES - 1, ROWS)) % CLASSES
        predicted = np.where(right, truth, np.where(new, rng.integers(0, CLASSES, ROWS), wrong))
        distance = rng.normal(size=ROWS) + 1.5 * new
        rows = Rows(confidence, distance, np.ones(ROWS), predicted.astype(np.int64))
        chosen = select(rows, labels=self.labels, settings=SelectSettings(), seed=seed)
        answers = LabelledAnswers(confidence, rows.class_id, chosen.probability, chosen.chosen, truth.astype(np.int64))
        return answers, right

    def true_accuracy(self) -> float:
        """Return the expectation over streams, which an interval must hold."""
        a, b = self.known
        if self.over_confident:
            draws = np.random.default_rng(1).beta(a, b, 4_000_000)
            known = float(np.clip(draws - self.over_confident, 0, 1).mean())
        else:
            known = a / (a + b)
        if self.lost_class:
            known = known * (1 - 1 / CLASSES) + TRUE_RECALL_OF_LOST / CLASSES
        return (1 - self.new_share) * known


STREAMS = (
    Stream("unchanged"),
    Stream("unchanged, 99.8 % right", known=(30, 0.06)),
    Stream("unchanged, 90 % right", known=(9, 1)),
    Stream("15 % of a new class", new_share=0.15),
    Stream("15 % of a new class, mean confidence 0.89", new_share=0.15, new=(12, 1.5)),
    Stream("15 % of a new class, mean confidence 0.98", new_share=0.15, new=(60, 1)),
    Stream("over-confident by 5 points", over_confident=0.05),
    Stream("recall of one class 0.6", lost_class=True),
    Stream("15 % of a new class, 60 labels", new_share=0.15, labels=60),
    Stream("unchanged, 60 labels", labels=60),
)


def _test_split(rng: np.random.Generator, recall: float) -> RecallReference:
    """Draw the recall of each class as a test split measures it, by its own chance."""
    right = rng.binomial(TEST_IMAGES, recall, CLASSES)
    return RecallReference(
        recall={id_: count / TEST_IMAGES for id_, count in enumerate(right.tolist())},
        images=dict.fromkeys(range(CLASSES), TEST_IMAGES),
    )


class Estimated(Part):
    name: str
    labels: int
    accuracy: float
    covered: float
    """Share of the runs whose interval holds the accuracy."""
    half_width: float
    """Mean half-width over the runs."""
    mean_error: float
    """Mean of estimate minus accuracy."""
    recall_covered: float
    """Share of the intervals of all known classes and runs that hold the recall."""
    alarms: float
    """Share of the runs with an alarm on the recall of any class."""
    width_judged: bool
    """Whether the stream has enough labels for the bar on the width."""
    met: bool


def estimated(stream: Stream, *, runs: int, seed: int) -> Estimated:
    rng = np.random.default_rng([seed, *stream.name.encode()])
    truth, known_recall = stream.true_accuracy(), Stream("", known=stream.known).true_accuracy()
    split = np.random.default_rng([seed, 1, *stream.name.encode()])
    covered, widths, errors, alarms, recalls = [], [], [], [], []
    for run in range(runs):
        found = accuracy_of(stream.answers(rng, run)[0], reference=_test_split(split, known_recall))
        overall = found.overall
        assert overall is not None
        covered.append(overall.low <= truth <= overall.high)
        widths.append(overall.half_width)
        errors.append(overall.value - truth)
        alarms.append(any(each.alarm for each in found.classes))
        changed = stream.lost_class or stream.over_confident
        for each in found.classes:
            if each.known and each.recall and (not changed or (stream.lost_class and each.class_id == 0)):
                expected = TRUE_RECALL_OF_LOST if stream.lost_class else known_recall
                recalls.append(each.recall.low <= expected <= each.recall.high)
    share, width, width_judged = float(np.mean(covered)), float(np.mean(widths)), stream.labels >= LABELS
    return Estimated(
        name=stream.name,
        labels=stream.labels,
        accuracy=truth,
        covered=share,
        half_width=width,
        mean_error=float(np.mean(errors)),
        recall_covered=float(np.mean(recalls)) if recalls else 1.0,
        alarms=float(np.mean(alarms)),
        width_judged=width_judged,
        met=share >= COVERED and (width <= HALF_WIDTH or not width_judged),
    )
