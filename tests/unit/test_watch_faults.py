"""The watch over a made journal: new bundles, odd rows, clocks, disks and files, and faults that harm no other."""

import json
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.errors import ServingError, SpecError, StorageError
from slipway.operations.journal.store import Store
from slipway.operations.watch import run as running
from slipway.operations.watch import state as states
from slipway.operations.watch.facts import Facts
from slipway.operations.watch.restarts import add_restart
from slipway.operations.watch.run import Watch, only_watch, run_watch
from slipway.operations.watch.status import status_of, watched_state
from slipway.operations.watch.test_split import FILE, folder_of
from slipway.serving import Ports
from tests.support import watch_looks as fixtures
from tests.support.journal_rows import BUNDLE, journal_in
from tests.support.journals import until
from tests.support.watch_looks import alarm_in, drift_in, look, looks, watched_in
from tests.support.watch_rows import add_drawn, drawn, made_reference, watch_settings

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


def test_another_bundle_is_said_with_the_command_and_the_others_go_on(store: Store) -> None:
    made_reference(store.folder, classifier="cats")
    add_drawn(store, drawn(150, seed=1), name="a")
    add_drawn(store, drawn(150, seed=2), name="b", classifier="cats")
    add_drawn(store, drawn(20, seed=3), name="new", bundle="bundle-2", replayed_bundle="bundle-2")
    add_drawn(store, drawn(20, seed=3), name="try", bundle="bundle-3", replayed_bundle="bundle-3", arm="candidate")
    add_drawn(store, drawn(20, seed=4), name="dogs", classifier="dogs")
    said: list[str] = []
    cats, digits, dogs = looks(store, said)
    assert (cats.watched is not None, digits.watched, dogs.watched) == (True, None, None)
    assert "bundle-2 answers now" in digits.told[0]
    assert "slipway watch reference gateway.yaml RUN --classifier digits" in digits.told[0]
    assert "no reference of the bundle" in dogs.told[0]
    made_reference(store.folder, bundle="bundle-2")
    assert drift_in(look(store, said)).rows == 20
    assert sum("watches the bundle bundle-2" in line for line in said) == 1


def test_values_that_are_not_numbers_and_a_class_that_disappears_are_alarms(store: Store) -> None:
    columns = drawn(1500, seed=12, classes=2)
    columns["confidence"][::3] = np.nan
    add_drawn(store, {**columns, "confidence": np.nan_to_num(columns["confidence"], nan=0.9)}, name="gone")
    facts = look(store)
    assert alarm_in(facts).event == "class two is less frequent"
    add_restart(store, watched_state(store, "digits"), reason="seen", live=None)
    columns = drawn(300, seed=13)
    columns["embedding"][::4] = np.nan
    add_drawn(store, columns, name="nan")
    assert alarm_in(look(store)).detector == "unusable"


def test_clocks_that_jump_change_no_count(store: Store) -> None:
    for number, time_s in enumerate((2e9, 1e9, -5.0, 1e18)):
        add_drawn(store, drawn(50, seed=number), name=f"r{number}", time_s=time_s)
    facts = look(store)
    assert facts.rows == 200
    assert facts.rows_per_second == 0
    assert drift_in(facts).rows == 200
    assert status_of(watch_settings(store.folder)).lines()
    add_drawn(store, drawn(60, seed=9), name="now", time_s=time.time())
    assert 60 / 3600 <= look(store).rows_per_second <= 60 / 60, "a clock that was ahead once hides no later row"


def test_a_network_without_an_embedding_is_watched_by_the_rest(bare: Store) -> None:
    made_reference(bare.folder, has_embedding=False)
    add_drawn(bare, drawn(300, seed=3), name="a", embedding=None)
    facts = look(bare)
    assert drift_in(facts).alarm is None
    assert any("has no embedding" in line for line in facts.told)
    dark = drawn(300, seed=4)
    dark["brightness"] *= 0.6
    add_drawn(bare, dark, name="b", embedding=None)
    assert alarm_in(look(bare)).detector == "brightness"


def test_a_small_test_split_waits_for_live_rows(bare: Store) -> None:
    made_reference(bare.folder, rows=40)
    add_drawn(bare, drawn(150, seed=3), name="a")
    facts = look(bare, reference_rows=200)
    assert watched_in(facts).drift is None
    assert any("drift needs 100" in line for line in facts.told)
    add_drawn(bare, drawn(150, seed=4), name="b")
    facts = look(bare, reference_rows=200)
    assert drift_in(facts).source == "live"
    assert "unchecked" in watched_in(facts).live_told


def test_a_full_disk_keeps_the_watch_going_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("state.json: cannot be written: No space left on device")

    add_drawn(store, drawn(100, seed=3), name="a")
    watch = Watch(store, watch_settings(store.folder), say=[].append)
    with monkeypatch.context() as patched:
        patched.setattr(states, "write_private", full)
        watch.look()
        add_drawn(store, drawn(100, seed=4, foreign=0.6), name="b")
        (facts,) = watch.look()
    assert facts.alarms
    assert "kept in memory alone" in facts.told[0]
    assert not (folder_of(store.folder, "digits") / states.FILE).exists()
    (facts,) = watch.look()
    assert not any("memory" in line for line in facts.told)
    assert look(store).watched == facts.watched


@pytest.mark.parametrize("name", [FILE, states.FILE, "restarts.json"])
def test_a_damaged_file_is_named_and_harms_no_other_classifier(store: Store, name: str) -> None:
    made_reference(store.folder, classifier="cats")
    add_drawn(store, drawn(100, seed=3), name="a")
    add_drawn(store, drawn(100, seed=3), name="b", classifier="cats")
    look(store)
    (folder_of(store.folder, "digits") / name).write_text("{")
    cats, digits = looks(store)
    assert cats.watched is not None
    assert digits.watched is None
    assert name in digits.told[0]
    assert "not watched" in digits.told[0]
    shown = status_of(watch_settings(store.folder))
    assert [one.watched is not None for one in shown.facts] == [True, False]
    assert any(name in line and "not watched" in line for line in shown.lines())


@pytest.mark.parametrize("name", ["state.json", FILE])
def test_a_file_of_another_classifier_is_refused(store: Store, name: str) -> None:
    made_reference(store.folder, classifier="cats")
    add_drawn(store, drawn(100, seed=3), name="a")
    add_drawn(store, drawn(100, seed=3), name="b", classifier="cats")
    looks(store)
    (folder_of(store.folder, "digits") / name).write_bytes((folder_of(store.folder, "cats") / name).read_bytes())
    cats, digits = looks(store)
    assert cats.watched is not None
    assert (digits.classifier, digits.watched) == ("digits", None)
    assert "of the classifier cats, and not of digits" in digits.told[0]


@pytest.mark.parametrize(
    "keys", [("labels",), ("drift", "events"), ("means", "axes"), ("means", "light"), ("measures", "confidence")]
)
def test_a_reference_that_lost_a_part_is_damaged_and_harms_no_other(store: Store, keys: tuple[str, ...]) -> None:
    made_reference(store.folder, classifier="cats")
    add_drawn(store, drawn(100, seed=3), name="a")
    path = folder_of(store.folder, "digits") / FILE
    content = json.loads(path.read_text())
    *above, last = keys
    part = content
    for key in above:
        part = part[key]
    part[last] = "x" if keys[0] == "means" else []
    path.write_text(json.dumps(content))
    (cats, digits) = looks(store)
    assert (cats.classifier, cats.watched is not None, digits.watched) == ("cats", True, None)
    assert last in digits.told[0] or "means" in digits.told[0]
    assert "slipway watch reference writes it again" in digits.told[0]


def test_a_log_of_restarts_that_was_moved_away_is_a_new_one_whose_entries_count(store: Store) -> None:
    add_drawn(store, drawn(200, seed=7), name="a")
    look(store)
    add_restart(store, watched_state(store, "digits"), reason="seen", live=None)
    look(store)
    add_drawn(store, drawn(20, seed=8), name="c")
    look(store)
    log = folder_of(store.folder, "digits") / "restarts.json"
    log.write_text("{")
    assert f"move {log} away" in look(store).told[0]
    log.unlink()
    add_restart(store, watched_state(store, "digits"), reason="seen again", live=None)
    add_drawn(store, drawn(10, seed=9), name="b")
    assert drift_in(look(store)).rows == 10


@pytest.mark.parametrize("column", ["probability", "embedding"])
def test_values_that_are_cut_short_are_a_damaged_journal(store: Store, column: str) -> None:
    odd = add_drawn(store, drawn(5, seed=3), name="a")[2]
    store.write(f"UPDATE rows SET {column} = x'00000000' WHERE id = ?", [(odd,)])
    facts = look(store)
    assert facts.watched is None
    assert "the journal is damaged" in facts.told[0]


def test_rows_are_counted_once_while_the_reference_is_damaged(store: Store) -> None:
    add_drawn(store, drawn(100, seed=3), name="a")
    (folder_of(store.folder, "digits") / FILE).write_text("{")
    watch = Watch(store, watch_settings(store.folder), say=[].append)
    assert [one.rows for one in watch.look()] == [100]
    store.write("DELETE FROM rows", [()])
    assert [one.rows for one in watch.look()] == [100]


def test_a_journal_that_was_made_anew_is_watched_from_its_first_row(store: Store) -> None:
    add_drawn(store, drawn(300, seed=3, foreign=0.5), name="a")
    look(store)
    add_restart(store, watched_state(store, "digits"), reason="seen", live=None)
    look(store)
    for path in store.folder.glob("journal.sqlite*"):
        path.unlink()
    said: list[str] = []
    with journal_in(store.folder, make=True) as new:
        add_drawn(new, drawn(50, seed=4), name="b")
        facts = look(new, said)
    assert any("a new one" in line for line in said)
    assert facts.rows == 50
    assert drift_in(facts).rows == 50


def test_one_watch_at_a_time_and_faults_that_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, ended = watch_settings(tmp_path / "journal", metrics_port=Ports.free().http), threading.Event()

    def once(**changes: Any) -> tuple[Facts, ...]:
        own = settings.model_copy(update=changes)
        return run_watch(own, ended=ended, say=lambda _: None, once=True)

    with pytest.raises(SpecError, match=r"no journal; slipway journal run gateway\.yaml makes one"):
        once()
    with Store.of(settings, make=True) as store:
        assert once() == ()
        add_drawn(store, drawn(5, seed=3), name="a")
        assert once()[0].rows == 5
        with only_watch(settings), pytest.raises(SpecError, match="one is enough"):
            once()
        with monkeypatch.context() as impatient, sqlite3.connect(settings.journal / "journal.sqlite") as locking:
            impatient.setattr("slipway.operations.journal.store.BUSY_S", 0.05)
            locking.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="database is locked"):
                once()
            locking.execute("ROLLBACK")
        locking.close()
        assert settings.watch is not None
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            taken = settings.watch.model_copy(update={"metrics_port": other.getsockname()[1]})
            with pytest.raises(ServingError, match=r"watch.metrics_port: 127.0.0.1:\d+ cannot be used"):
                once(watch=taken)
        made_reference(settings.journal)
        assert once()[0].watched is not None
        store.write("UPDATE rows SET probability = x'00000000' WHERE id = ?", [(1,)])
        assert "differ in length" in once()[0].told[0]
        store.query("PRAGMA user_version = 99")
    with pytest.raises(SpecError, match="of version 99"):
        once()
    (settings.journal / "journal.sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(StorageError):
        once()


def test_the_watch_waits_for_a_journal_and_for_one_that_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LOOK_S", 0.01)
    settings, ended = watch_settings(tmp_path / "journal", metrics_port=Ports.free().http), threading.Event()
    said: list[str] = []
    arguments = {"ended": ended, "say": said.append}
    thread = threading.Thread(target=run_watch, args=(settings,), kwargs=arguments)
    thread.start()
    try:
        until(lambda: any("no journal yet" in line for line in said))
        with Store.of(settings, make=True) as store:
            add_drawn(store, drawn(5, seed=3), name="a")
            until(lambda: any("no reference of the bundle" in line for line in said))
        for path in settings.journal.glob("journal.sqlite*"):
            path.unlink()
        until(lambda: any("removed or replaced" in line for line in said))
        with Store.of(settings, make=True) as store:
            add_drawn(store, drawn(2, seed=3), name="a")
            until(lambda: any("a new one" in line for line in said))
        assert json.loads(json.dumps(status_of(settings).plain()))["classifiers"][0]["rows"] == 2
    finally:
        ended.set()
        thread.join()
    assert BUNDLE[:12] in "".join(said)


def test_a_class_that_disappears_is_named_with_its_first_row(store: Store) -> None:
    columns = drawn(4000, seed=5)
    gone = np.flatnonzero((np.arange(4000) < 500) | (columns["class_id"] != 1))
    add_drawn(store, {name: column[gone] for name, column in columns.items()}, name="a")
    facts = look(store, reference_rows=4000)
    assert alarm_in(facts).event == "class one is less frequent"
    assert abs(alarm_in(facts).since_row - 500) < 30


def test_a_classifier_whose_folder_cannot_be_made_is_watched_in_memory(bare: Store) -> None:
    add_drawn(bare, drawn(150, seed=1), name="a")
    (bare.folder / "watch").mkdir()
    (bare.folder / "watch" / "digits").write_text("in the way", encoding="utf-8")
    watch = Watch(bare, watch_settings(bare.folder), say=lambda _: None)
    for _ in range(2):
        (facts,) = watch.look()
        assert facts.rows == 150
        assert "the state cannot be written, and is kept in memory alone" in facts.told[0]
