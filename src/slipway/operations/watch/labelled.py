"""Accuracy and recall of the present bundle from what people said of its rows."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from slipway.operations.journal.reading import check_values
from slipway.operations.journal.store import Store
from slipway.operations.labels.truth import truths
from slipway.operations.watch.accuracy import (
    CONFIDENCE,
    ClassAccuracy,
    Estimate,
    LabelledAnswers,
    LiveAccuracy,
    RecallReference,
    accuracy_of,
    least,
)
from slipway.operations.watch.facts import AccuracyFacts, ClassRecall
from slipway.operations.watch.settings import WatchSettings
from slipway.operations.watch.test_split import TestReference

ENOUGH_LABELS = 200
"""Labels of the newest selections on which an estimate stands. Older selections are left out: the present counts."""
LEAST_LABELLED = 0.5
"""Smallest share of a selection's chosen rows with a label with which it counts."""


@dataclass(frozen=True)
class _Selection:
    number: int
    chosen: int
    labels: int
    """Chosen rows with a label."""


@dataclass(frozen=True)
class _Considered:
    row: int
    probability: float
    chosen: bool
    class_id: int
    confidence: float


def accuracy_facts(
    store: Store, reference: TestReference, settings: WatchSettings
) -> tuple[AccuracyFacts, tuple[ClassRecall, ...]]:
    """Estimate accuracy and recall from the newest selections with labels.

    A row that was asked for because two versions differ never counts: it was not chosen with a probability. Where only
    a share of a selection's chosen rows has a label, its probabilities are multiplied by this share, as if chance had
    decided which labels come first.
    """
    answers, names = _answers(store, reference)
    points = settings.accuracy_points
    recalls = RecallReference(recall=reference.recall, images=reference.images, points=points)
    found = accuracy_of(answers, reference=recalls)
    overall = found.overall
    facts = AccuracyFacts(
        estimate=overall,
        reference=reference.accuracy,
        points=points,
        alarm=overall is not None and is_lower(overall, reference, points=points),
        rows=found.rows,
    )
    return facts, _recalls(found, reference, names)


def is_lower(overall: Estimate, reference: TestReference, *, points: float) -> bool:
    """Whether the accuracy is shown to be lower, with about 5 % false alarms at most in one reading.

    The interval's upper end is too low with about 2.5 %, and the test split's lower bound too high with 2.5 % at most.
    """
    known = least(reference.accuracy, images=sum(reference.images.values()), error=(1 - CONFIDENCE) / 2)
    return overall.high < known - points / 100


def _recalls(found: LiveAccuracy, reference: TestReference, names: dict[int, str]) -> tuple[ClassRecall, ...]:
    def recall(one: ClassAccuracy) -> ClassRecall:
        return ClassRecall(
            label=names.get(one.class_id, f"class {one.class_id}"),
            class_id=one.class_id if one.class_id < len(reference.labels) else None,
            reference=reference.recall.get(one.class_id),
            estimate=one.recall,
            precision=one.precision,
            alarm=one.alarm,
        )

    return tuple(recall(one) for one in found.classes)


def _answers(store: Store, reference: TestReference) -> tuple[LabelledAnswers, dict[int, str]]:
    """The considered rows of the newest selections that have labels, and the names of all classes by id."""
    said = truths(store, reference.classifier, bundle=reference.bundle)
    ids = {label: id_ for id_, label in enumerate(reference.labels)}
    for new in sorted(set(said.values())):
        ids.setdefault(new, len(ids))  # a class that the bundle does not know
    rows: list[_Considered] = []
    truth: list[int | None] = []
    for selection in _counting(_selections(store, reference, said)):
        share = selection.labels / selection.chosen
        for one in _considered(store, reference, selection.number):
            label = said.get(one.row) if one.chosen else None
            rows.append(_Considered(one.row, one.probability * share, one.chosen, one.class_id, one.confidence))
            truth.append(None if label is None else ids[label])
    columns = LabelledAnswers(
        confidence=np.array([one.confidence for one in rows], np.float64),
        class_id=np.array([one.class_id for one in rows], np.int64),
        probability=np.array([one.probability for one in rows], np.float64),
        labelled=np.array([one is not None for one in truth], bool),
        truth=np.array([-2 if one is None else one for one in truth], np.int64),
    )
    return columns, {id_: label for label, id_ in ids.items()}


def _counting(selections: list[_Selection]) -> list[_Selection]:
    """The newest selections with `ENOUGH_LABELS` together; one that has few of its labels so far only if all have."""
    some = [one for one in selections if one.labels]
    ripe = [one for one in some if one.labels >= LEAST_LABELLED * one.chosen]
    taken: list[_Selection] = []
    for one in ripe or some[:1]:
        if sum(before.labels for before in taken) >= ENOUGH_LABELS:
            break
        taken.append(one)
    return taken


_OF_BUNDLE = (
    # CROSS JOIN has SQLite begin with the few considered rows of the condition, not with all rows of the bundle.
    "FROM considered CROSS JOIN rows ON rows.id = considered.row "
    "WHERE rows.classifier = :classifier AND rows.bundle = :bundle "
    "AND considered.probability > 0 AND considered.probability <= 1"
)


def _selections(store: Store, reference: TestReference, said: dict[int, str]) -> list[_Selection]:
    """Every selection that chose rows of a bundle, newest first, without its considered rows: they are many.

    The number of its newest row tells how new it is: the time of a selection may be of a clock that was wrong.
    """
    found = store.query(
        f"SELECT considered.selection, considered.row {_OF_BUNDLE} AND considered.chosen = 1",
        {"classifier": reference.classifier, "bundle": reference.bundle},
    )
    chosen = Counter(selection for selection, _ in found)
    labels = Counter(selection for selection, row in found if row in said)
    newest: dict[int, int] = {}
    for selection, row in found:
        newest[selection] = max(row, newest.get(selection, 0))
    order = sorted(newest, key=newest.__getitem__, reverse=True)
    return [_Selection(number, chosen[number], labels[number]) for number in order]


def _considered(store: Store, reference: TestReference, selection: int) -> list[_Considered]:
    """The rows of a bundle that a selection considered.

    Raises:
        DataError: a row has values that no collector writes.
    """
    found = store.query(
        "SELECT considered.row, considered.probability, considered.chosen, rows.class_id, rows.score "
        f"{_OF_BUNDLE} AND considered.selection = :selection ORDER BY considered.row",
        {"classifier": reference.classifier, "bundle": reference.bundle, "selection": selection},
    )
    check_values(("id", "", "", "class_id", "score"), found, settings_file=store.settings_file)
    return [
        _Considered(
            row=row,
            probability=probability,
            chosen=bool(chosen),
            class_id=-1 if class_id is None else class_id,
            confidence=np.nan if score is None else score,
        )
        for row, probability, chosen, class_id, score in found
    ]
