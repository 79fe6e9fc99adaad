"""What the watch says from labels: accuracy, classes, and reasons for a turn."""

from operator import itemgetter
from typing import Any

import pytest

from slipway.contract.turn import FleetTurn
from slipway.operations.journal.store import Store
from slipway.operations.turn.proposal import drift, lost_accuracy
from slipway.operations.watch.state import WatchState
from slipway.operations.watch.status import status_of
from tests.support import watch_shown
from tests.support.watch_rows import add_drawn, drawn, made_reference, watch_settings
from tests.support.watch_shown import look, say_labels, select, truth, watched

store = watch_shown.watched_store


def test_without_labels_the_accuracy_is_unknown(store: Store) -> None:
    add_drawn(store, drawn(200, seed=3), name="a")
    found = watched(store)
    assert found.accuracy.estimate is None
    assert not found.accuracy.alarm
    assert "no label yet, so the accuracy of live answers is unknown" in look(store).told


def test_labels_give_an_accuracy_and_an_alarm_where_it_is_proved_lower(store: Store) -> None:
    columns = drawn(400, seed=3)
    rows = add_drawn(store, columns, name="a")
    select(store, rows, chosen=rows[::2], selection=1, probability=0.5)
    right = truth(columns, rows)
    say_labels(store, {row: right[row] for row in rows[::2]})
    found = watched(store)
    assert found.accuracy.estimate is not None
    assert (found.accuracy.estimate.labels, found.accuracy.rows, found.accuracy.alarm) == (200, 400, False)
    assert found.accuracy.estimate.value > 0.97
    store.write("DELETE FROM labels", [()])
    wrong = truth(columns, rows, wrong=160)
    say_labels(store, {row: wrong[row] for row in rows[::2]})
    found = watched(store)
    assert found.accuracy.estimate is not None
    assert found.accuracy.alarm
    assert abs(found.accuracy.estimate.value - 0.6) < 0.05
    assert any(one.alarm for one in found.recalls)
    reason = lost_accuracy(found, FleetTurn(), missing="")
    assert reason.is_reason
    assert "a loss of over 2 points is proved; recall proved to be lost: " in reason.said
    lines = status_of(watch_settings(store.folder)).lines()
    assert any(line.startswith("  accuracy: LOWER: ") for line in lines)


@pytest.mark.parametrize("is_unknown", [True, False])
def test_foreign_images_are_a_reason_for_a_turn_if_they_are_answered_unknown(store: Store, is_unknown: bool) -> None:
    columns = drawn(600, seed=3, foreign=0.25)
    rows = add_drawn(store, columns, name="a")
    doubted = [(row,) for row, sure in zip(rows, columns["confidence"].tolist(), strict=True) if sure < 0.62]
    if is_unknown:
        store.write("UPDATE rows SET class_id = -1, label = 'unknown' WHERE id = ?", doubted)
    found = drift(watched(store), FleetTurn(), missing="")
    assert found.is_reason is is_unknown
    assert found.said.startswith("alarm: ")
    shares = f"{len(doubted) * is_unknown / 600:.1%} of the newest answers are unknown, 0.0% on the test split"
    assert shares in found.said


def test_a_rise_of_unknown_answers_is_a_reason_however_long_nothing_changed(store: Store) -> None:
    """20,000 known answers before would make 150 unknown ones of the newest 1,000 a rise of 0.7 points."""
    add_drawn(store, drawn(1000, seed=3), name="before")
    look(store)
    state = WatchState.load(store.folder, "digits")
    assert state.current is not None
    usual = dict.fromkeys(range(3), 20_000 // 3)
    state.model_copy(update={"current": state.current.model_copy(update={"predicted": usual})}).keep(store.folder)
    columns = drawn(1000, seed=4, foreign=0.15)
    rows = add_drawn(store, columns, name="now")
    doubted = [(row,) for row, _ in sorted(zip(rows, columns["confidence"].tolist(), strict=True), key=itemgetter(1))]
    store.write("UPDATE rows SET class_id = -1, label = 'unknown' WHERE id = ?", doubted[:150])
    found = watched(store)
    assert sum(one.rows for one in found.predicted if one.class_id != -1) > 20_000
    reason = drift(found, FleetTurn(), missing="")
    assert reason.is_reason
    assert "; 15.0% of the newest answers are unknown, 0.0% on the test split; " in reason.said


def test_labels_of_a_part_of_a_selection_are_as_if_chance_had_left_the_others_out(store: Store) -> None:
    columns = drawn(400, seed=3)
    rows = add_drawn(store, columns, name="a")
    select(store, rows, chosen=rows[::2], selection=1, probability=0.5)
    said = truth(columns, rows, wrong=80)
    say_labels(store, {row: said[row] for row in rows[::4]})  # half of what was asked
    found = watched(store)
    assert found.accuracy.estimate is not None
    assert abs(found.accuracy.estimate.value - 0.8) < 0.05
    assert found.accuracy.estimate.labels == 100


def test_rows_that_were_asked_because_two_versions_differ_do_not_count(store: Store) -> None:
    columns = drawn(100, seed=3)
    rows = add_drawn(store, columns, name="a")
    select(store, rows[:50], chosen=[], selection=1, probability=0.5)
    store.write("INSERT INTO asked VALUES (?, 'differs', 0)", [(row,) for row in rows])
    say_labels(store, truth(columns, rows, wrong=100))
    facts = look(store)
    assert (facts.labels_asked, facts.labels_given) == (100, 100)
    assert watched(store).accuracy.estimate is None


@pytest.mark.parametrize("ahead", [0, 1000], ids=["clock right", "first selection by a clock that was ahead"])
def test_the_newest_selections_count_and_one_with_few_labels_waits(store: Store, ahead: int) -> None:
    estimates = []
    for selection, wrong in enumerate((250, 0, 0)):
        columns = drawn(250, seed=selection)
        rows = add_drawn(store, columns, name=f"r{selection}")
        select(store, rows, chosen=rows, selection=selection or ahead, probability=1.0)
        said = truth(columns, rows, wrong=wrong)
        say_labels(store, said if selection < 2 else {row: said[row] for row in rows[:20]})
        estimate = watched(store).accuracy.estimate
        assert estimate is not None
        estimates.append((round(estimate.value, 2), estimate.labels))
    assert estimates == [(0.0, 250), (1.0, 250), (1.0, 250)]


def test_a_look_reads_only_the_selections_that_count_and_asks_for_labels_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_reference(store.folder, classifier="cats")
    for selection in range(3):
        columns = drawn(200, seed=selection)
        rows = add_drawn(store, columns, name=f"r{selection}")
        select(store, rows, chosen=rows, selection=selection, probability=1.0)
        say_labels(store, truth(columns, rows))
    asked: list[tuple[str, Any]] = []
    query = Store.query

    def noted(self: Store, text: str, values: Any = ()) -> Any:
        asked.append((text, values))
        return query(self, text, values)

    monkeypatch.setattr(Store, "query", noted)
    look(store)
    assert sum("considered.selection = :selection" in text for text, _ in asked) == 1
    assert sum("FROM labels), (SELECT" in text for text, _ in asked) == 1
    indexes = {name for _, name, *_ in query(store, "PRAGMA index_list(rows)")}
    assert "rows_bundle" in indexes
    plans = [query(store, f"EXPLAIN QUERY PLAN {text}", values) for text, values in asked if "considered" in text]
    steps = {detail.replace("COVERING ", "") for plan in plans for *_, detail in plan}
    assert {step for step in steps if step.split()[:2] in (["SCAN", "considered"], ["SEARCH", "considered"])} == {
        "SEARCH considered USING INDEX considered_selection",
        "SEARCH considered USING INDEX considered_selection (selection=?)",
        "SCAN considered USING INDEX considered_chosen",
    }


def test_a_class_that_the_bundle_does_not_know_is_listed_by_its_name(store: Store) -> None:
    columns = drawn(100, seed=3)
    rows = add_drawn(store, columns, name="a")
    select(store, rows, chosen=rows, selection=1, probability=1.0)
    say_labels(store, truth(columns, rows) | dict.fromkeys(rows[:30], "seven"))
    found = watched(store)
    new = next(one for one in found.recalls if one.label == "seven")
    assert (new.class_id, new.reference, new.alarm) == (None, None, False)
    assert new.estimate is not None
    assert (new.estimate.value, new.estimate.labels) == (0.0, 30)
