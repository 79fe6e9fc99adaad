"""What the watch shows of each class from labels: recall and precision, with a bounded number of series."""

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.facts import ClassRecall, PredictedClass
from tests.support import watch_looks as fixtures
from tests.support.watch_looks import look, watched_in
from tests.support.watch_rows import add_drawn, drawn
from tests.unit.test_watch_shown import say_labels, scraped, select, truth

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


def test_the_precision_of_a_class_is_the_share_of_right_ones_among_its_answers(store: Store) -> None:
    columns = drawn(300, seed=3)
    rows = add_drawn(store, columns, name="a")
    select(store, rows, chosen=rows, selection=1, probability=1.0)
    say_labels(store, truth(columns, rows, wrong=60))
    found = {one.class_id: one for one in watched_in(look(store)).recalls}
    for id_ in range(3):
        answers = columns["class_id"] == id_
        precision = found[id_].precision
        assert precision is not None
        assert precision.labels == answers.sum()
        assert precision.value == pytest.approx(1 - answers[:60].sum() / answers.sum())
        assert precision.low < precision.value < precision.high


def test_recall_and_precision_of_a_thousand_classes_have_fifty_series_and_those_of_alarms(store: Store) -> None:
    add_drawn(store, drawn(10, seed=3), name="a")
    half = Estimate(value=0.5, low=0.4, high=0.6, labels=9)
    classes = tuple(
        PredictedClass(class_id=number, label=f"c{number}", rows=0, latest_rows=0, reference_rows=number)
        for number in range(1000)
    )
    recalls = tuple(
        ClassRecall(
            label=f"c{number}",
            class_id=number if number < 1000 else None,
            reference=0.9 if number < 1000 else None,
            estimate=half,
            precision=None if number == 999 else half,
            alarm=number == 7,
        )
        for number in range(1001)
    )
    facts = look(store)
    many = watched_in(facts).model_copy(update={"predicted": classes, "recalls": recalls})
    found = scraped([facts.model_copy(update={"watched": many})])
    recall, precision = (
        {dict(labels)["class"] for labels in found[f"slipway_watch_{name}"]} for name in ("recall", "precision")
    )
    assert recall == {"c7", *(f"c{number}" for number in range(950, 1000))}
    assert precision == recall - {"c999"}
    assert len(found["slipway_watch_recall"]) == 3 * 51
