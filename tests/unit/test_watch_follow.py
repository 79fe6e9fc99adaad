"""The watch over a made journal: rows once, live references and restarts."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from slipway.errors import SpecError
from slipway.operations.journal.store import Store
from slipway.operations.watch import restarts
from slipway.operations.watch import state as states
from slipway.operations.watch.restarts import add_restart, read_restarts
from slipway.operations.watch.state import Current, WatchState
from slipway.operations.watch.status import check_no_alarm, watched_state
from slipway.operations.watch.test_split import folder_of, read_reference, write_reference
from tests.support import watch_looks as fixtures
from tests.support.journal_rows import BUNDLE, journal_in
from tests.support.watch_looks import alarm_in, drift_in, kept, look, watched_in
from tests.support.watch_rows import add_drawn, drawn, made_reference

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


def current_of(store: Store) -> Current:
    """The state of the watch, without times and the entries that are carried out."""
    current = WatchState.load(store.folder, "digits").current
    assert current is not None
    live = None if current.live is None else current.live.model_copy(update={"taken_s": 0.0})
    return current.model_copy(update={"live": live, "restarts": ()})


def test_rows_are_counted_and_fed_once_however_often_the_watch_starts(store: Store) -> None:
    for number in range(4):
        add_drawn(store, drawn(150, seed=10 + number), name=f"r{number}")
        add_drawn(store, drawn(5, seed=3), name=f"bad{number}", status=3, probability=None, class_id=None, label=None)
        facts = look(store)
        assert facts == look(store).model_copy(update={"looked_s": facts.looked_s, "rows_per_second": 0.0})
    assert facts.rows == 620
    assert {one.name: one.rows for one in facts.statuses} == {"ok": 600, "corrupt": 20}
    assert (drift_in(facts).source, drift_in(facts).rows) == ("test", 600)
    assert drift_in(facts).alarm is None
    assert sum(one.rows for one in watched_in(facts).predicted) == 600
    assert sum(watched_in(facts).confidence.latest) == 600
    assert watched_in(facts).inputs.sizes[0].name == "64x48"


class KilledError(BaseException):
    pass


def test_a_kill_between_two_batches_changes_no_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_drawn(store, drawn(900, seed=5), name="a")
    monkeypatch.setattr("slipway.operations.watch.follow.BATCH", 70)
    look(store, reference_rows=400)
    whole = kept(store)
    (folder_of(store.folder, "digits") / states.FILE).unlink()
    written, keep = [0], WatchState.keep

    def killed(state: WatchState, journal: Path) -> None:
        written[0] += 1
        if written[0] % 3 == 0:
            raise KilledError
        keep(state, journal)
        if written[0] % 3 == 1 and written[0] > 3:
            raise KilledError

    monkeypatch.setattr(WatchState, "keep", killed)
    for _ in range(100):
        try:
            look(store, reference_rows=400)
            break
        except KilledError:
            continue
    assert written[0] > 20
    assert kept(store) == whole


def test_the_first_unchanged_live_rows_become_the_reference_and_the_gap_is_shown(store: Store) -> None:
    said: list[str] = []
    add_drawn(store, drawn(1500, seed=6), name="a")
    facts = look(store, said, reference_rows=1000)
    watched, drift = watched_in(facts), drift_in(facts)
    assert (watched.live_rows, drift.source, drift.rows) == (1000, "live", 500)
    assert "saw no change" in watched.live_told
    assert {one.measure for one in watched.gap} == {"confidence", "distance", "norm", "brightness", "class"}
    assert max(one.distance for one in watched.gap) < 0.12
    assert any("live reference is taken" in line for line in said)
    assert watched.accuracy.reference == 0.98


def test_a_change_is_an_alarm_that_names_its_first_row_and_no_reference(store: Store) -> None:
    said: list[str] = []
    add_drawn(store, drawn(300, seed=7), name="a")
    changed = add_drawn(store, drawn(900, seed=8, foreign=0.4), name="b", time_s=5000.0)
    facts = look(store, said)
    alarm = alarm_in(facts)
    assert alarm.detector in {"confidence", "distance", "norm"}
    assert abs((alarm.since_journal_row or 0) - changed[0]) < 20
    assert changed[0] <= alarm.journal_row < changed[0] + 60
    assert watched_in(facts).live_rows is None
    assert "until a restart" in watched_in(facts).live_told
    assert facts.alarms
    assert any("restart gateway.yaml digits --reason" in line for line in said)
    assert drift_in(facts).history[-1].log10_evidence > drift_in(facts).log10_threshold


def test_the_first_row_of_a_change_is_found_after_retention_has_removed_older_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_drawn(store, drawn(300, seed=7), name="a")
    look(store)
    store.write("DELETE FROM rows WHERE id <= ?", [(150,)])
    changed = add_drawn(store, drawn(100, seed=8, foreign=0.4), name="b")
    monkeypatch.setattr("slipway.operations.watch.follow.BATCH", 3)
    alarm = alarm_in(look(store))
    assert alarm.row - alarm.since_row > 3, "the change began in an earlier batch"
    assert abs((alarm.since_journal_row or 0) - changed[0]) < 10


def test_two_people_who_restart_at_once_lose_no_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_drawn(store, drawn(20, seed=7), name="a")
    look(store)
    read = restarts.read_restarts

    def slowly(*given: Any) -> Any:
        found = read(*given)
        time.sleep(0.1)
        return found

    def restart(reason: str) -> None:
        with journal_in(store.folder, make=False) as own:
            add_restart(own, watched_state(own, "digits"), reason=reason, live=None)

    monkeypatch.setattr(restarts, "read_restarts", slowly)
    threads = [threading.Thread(target=restart, args=(reason,)) for reason in ("lens", "lamp")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.reason for entry in read_restarts(store.folder, "digits")} == {"lens", "lamp"}


def test_a_new_reference_ends_no_alarm_and_an_equal_one_changes_nothing(store: Store) -> None:
    add_drawn(store, drawn(200, seed=8, foreign=0.5), name="a")
    before = look(store)
    assert before.alarms
    with pytest.raises(SpecError, match=r"an alarm of this bundle is on.*restart gateway.yaml digits --reason"):
        check_no_alarm(store, "digits", bundle=BUNDLE)
    check_no_alarm(store, "digits", bundle="bundle-2")
    check_no_alarm(store, "cats", bundle=BUNDLE)
    reference = read_reference(store.folder, "digits")
    assert reference is not None
    write_reference(store.folder, reference.model_copy(update={"made_s": 9.0}))
    assert look(store).watched == before.watched


def test_a_restart_is_of_its_bundle_and_counts_again_after_a_rollback(store: Store) -> None:
    add_drawn(store, drawn(200, seed=8, foreign=0.5), name="a")
    assert look(store).alarms
    add_restart(store, watched_state(store, "digits"), reason="a new product line", live=100)
    made_reference(store.folder, bundle="bundle-2")
    add_drawn(store, drawn(50, seed=3), name="b", bundle="bundle-2", replayed_bundle="bundle-2")
    assert drift_in(look(store)).rows == 50, "what a person said of another bundle's rows says nothing of these"
    add_restart(store, watched_state(store, "digits"), reason="seen", live=None)
    made_reference(store.folder)
    add_restart(store, watched_state(store, "digits"), reason="seen", live=None)
    new = add_drawn(store, drawn(60, seed=9, foreign=0.5), name="c")
    facts = look(store, reference_rows=100)
    assert not facts.alarms
    state = WatchState.load(store.folder, "digits").current
    assert state is not None
    assert (state.bundle, state.rows, state.trusted) == (BUNDLE, len(new), True)


def test_a_restart_begins_anew_and_keeps_who_and_why(store: Store) -> None:
    add_drawn(store, drawn(200, seed=7), name="a")
    add_drawn(store, drawn(200, seed=8, foreign=0.5), name="b")
    assert look(store).alarms
    state = watched_state(store, "digits")
    with pytest.raises(SpecError, match="reason: empty"):
        add_restart(store, state, reason="  ", live=None)
    add_restart(store, state, reason="lens cleaned", live=None)
    add_drawn(store, drawn(200, seed=9), name="c")
    facts = look(store)
    assert not facts.alarms
    assert (drift_in(facts).rows, watched_in(facts).restarts) == (200, 1)
    (entry,) = read_restarts(store.folder, "digits")
    assert entry.reason == "lens cleaned"
    assert entry.by
    assert entry.alarm is not None
    assert "since" in entry.alarm
    assert look(store).watched == facts.watched


def test_a_restart_with_live_takes_the_rows_since_the_change_and_waits_for_enough(store: Store) -> None:
    add_drawn(store, drawn(200, seed=7), name="a")
    add_drawn(store, drawn(100, seed=8, foreign=0.5), name="b")
    assert look(store, reference_rows=400).alarms
    add_restart(store, watched_state(store, "digits"), reason="a new product line", live=400)
    facts = look(store, reference_rows=400)
    assert watched_in(facts).drift is None
    assert not facts.drift_is_watched
    assert any("not watched until" in line for line in facts.told)
    add_drawn(store, drawn(800, seed=11, foreign=0.5), name="c")
    facts = look(store, reference_rows=400)
    assert (drift_in(facts).source, watched_in(facts).live_rows, drift_in(facts).alarm) == ("live", 400, None)
    assert "a person said" in watched_in(facts).live_told
    assert {one.measure: one.distance > 0.3 for one in watched_in(facts).gap}["distance"]


@pytest.mark.parametrize("enough", [True, False])
@pytest.mark.parametrize("is_running", [True, False])
def test_a_second_restart_with_live_has_the_effect_of_the_first(store: Store, enough: bool, is_running: bool) -> None:
    rows = 100 if enough else 400

    def restart() -> None:
        add_restart(store, watched_state(store, "digits"), reason="a new product line", live=rows)
        if is_running:
            look(store, reference_rows=rows)

    add_drawn(store, drawn(200, seed=7), name="a")
    changed = add_drawn(store, drawn(150, seed=8, foreign=0.5), name="b")
    assert look(store, reference_rows=rows).alarms
    restart()
    look(store, reference_rows=rows)
    first = current_of(store)
    restart()  # before any row has come
    look(store, reference_rows=rows)
    assert current_of(store) == first
    assert first.live_rows == (100 if enough else pytest.approx(150, abs=20))
    new = add_drawn(store, drawn(3, seed=11, foreign=0.5), name="c")
    restart()  # and right after one
    look(store, reference_rows=rows)
    again = current_of(store)
    assert again.live_after == first.live_after + (len(new) if enough else 0)
    assert again.live_rows == (100 if enough else first.live_rows + len(new))
    assert (again.live is not None) is enough
    assert again.live_after >= changed[0] - 20


def test_a_restart_without_live_ends_what_one_with_live_said_of_rows(store: Store) -> None:
    add_drawn(store, drawn(150, seed=7), name="a")
    look(store)
    for live in (400, None, 400):
        add_restart(store, watched_state(store, "digits"), reason="seen", live=live)
        look(store, reference_rows=400)
    assert current_of(store).live_rows == 0, "the rows of before were not as they should be"


def test_rows_that_come_before_the_watch_sees_a_restart_are_counted_once_and_are_watched(store: Store) -> None:
    add_drawn(store, drawn(150, seed=7), name="a")
    look(store)
    add_restart(store, watched_state(store, "digits"), reason="seen", live=100)
    before = add_drawn(store, drawn(30, seed=8), name="b")
    state = watched_state(store, "digits")
    assert state.current is not None
    fed = state.current.model_copy(update={"last_row": before[9]})  # a look was under way
    state.model_copy(update={"current": fed}).keep(store.folder)
    watched = look(store, reference_rows=100).watched
    assert watched is not None
    assert watched.drift is not None
    assert (watched.drift.source, watched.live_rows, watched.drift.rows) == ("live", 100, 20)


def test_rows_at_whose_end_a_change_is_suspected_are_no_reference_even_when_the_evidence_falls(store: Store) -> None:
    add_drawn(store, drawn(494, seed=7), name="a")
    changed = add_drawn(store, drawn(6, seed=8, foreign=1.0), name="b")
    settings = {"reference_rows": 500, "rows_between_false_alarms": 1e12}
    facts = look(store, **settings)
    watched, drift = watched_in(facts), drift_in(facts)
    assert drift.alarm is None, "suspected only"
    assert "must fall to" in watched.live_told
    assert watched.live_rows is None
    add_drawn(store, drawn(4000, seed=9), name="c")
    look(store, **settings)
    current = WatchState.load(store.folder, "digits").current
    assert current is not None
    assert current.live is not None
    assert current.live_after >= changed[-1]
