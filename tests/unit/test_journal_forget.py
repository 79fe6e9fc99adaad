"""What the journal removes: by request, by age, and what no row keeps; and nothing by a clock that may be wrong."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2 as triton

from slipway.contract import SpecError
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal import run
from slipway.operations.journal.forget import forget
from slipway.operations.journal.retention import PruningSchedule, prune, put_off
from slipway.operations.journal.spool import tap_files
from slipway.operations.journal.status import status_of
from slipway.operations.journal.store import Store, image_path, sha256_of
from tests.support import taps
from tests.support.gateways import write_gateway
from tests.support.journal_rows import journal_in
from tests.support.taps import Parts, changed, framed
from tests.support.v2_requests import RED

RED_SHA256 = sha256_of(RED)


parts = taps.parts


def test_an_image_that_was_written_before_a_kill_is_swept_and_one_with_a_row_is_not(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    for content in (b"of a killed collector", b"another"):
        path = image_path(parts.store.folder, sha256_of(content))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    path.rename(path.with_name(f".{path.name}.17"))
    (folder := parts.store.folder / "images/ab/a folder of somebody").mkdir(parents=True)
    assert prune(parts.store, image_days=30, row_days=365, now_s=time.time()) == {"rows": 0, "images": 2}
    folder.rmdir()
    assert parts.images() == [RED_SHA256]


@pytest.mark.parametrize(
    ("given", "left", "images"),
    [
        ("three.0", [("2", 0)], 1),
        ("1", [("2", 0)], 1),
        (RED_SHA256, [("1", 1)], 0),
        ("9", None, 1),
        ("x" * 70, None, 1),
    ],
)
def test_forget_removes_what_is_named_and_the_image_that_no_row_has(
    parts: Parts, given: str, left: list[tuple[str, int]] | None, images: int
) -> None:
    parts.tap(1)
    parts.collector.look()
    parts.tap(2, "grpc_full")
    parts.collector.look()
    before = parts.rows()
    done = forget(parts.store, parts.spool, given)
    assert parts.rows() == (before if left is None else left)
    assert len(parts.images()) == images
    assert done["images"] == 1 - images
    if left is not None:
        for name in ("journal.sqlite", "journal.sqlite-wal"):
            path = parts.store.folder / name
            assert not path.exists() or given not in ("three.0",) or b"three.0" not in path.read_bytes()


def test_an_empty_name_names_nothing(parts: Parts) -> None:
    tap = changed("grpc_three_images")
    buffered = tap.http_buffered_trace.request.body
    request = triton.ModelInferRequest.FromString(buffered.as_bytes[5:])
    request.id = ""
    buffered.as_bytes = framed(request)
    parts.tap(1, content=tap.SerializeToString())
    with pytest.raises(
        SpecError, match=r"the name is empty; give the number of a row \(slipway journal rows gateway.yaml\)"
    ):
        forget(parts.store, parts.spool, "")
    assert parts.collector.look().rows == 3
    assert parts.rows("client_id")[0] in {("",), (None,)}


def test_a_row_is_forgotten_by_its_number(parts: Parts) -> None:
    parts.tap(99)
    parts.collector.look()
    assert forget(parts.store, parts.spool, "2") == {"rows": 1, "images": 0, "spooled": 0}
    assert parts.rows("id") == [(1,), (3,)]


@pytest.mark.parametrize(("given", "rows"), [("three.0", 0), ("1", 0), (RED_SHA256, 1), (sha256_of(b"other"), 3)])
def test_what_is_forgotten_in_the_spool_is_not_taken_in(parts: Parts, given: str, rows: int) -> None:
    parts.tap(1)
    forget(parts.store, parts.spool, given)
    assert parts.collector.look().rows == rows
    assert len(parts.rows()) == rows
    assert len(parts.images()) == (1 if rows == 3 else 0)
    parts.tap(1)  # as after a kill between the commit and the removal
    parts.collector.look()
    assert len(parts.rows()) == rows


def test_what_is_forgotten_after_the_commit_does_not_come_back_from_its_file(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    parts.tap(1)
    forget(parts.store, parts.spool, "1")
    parts.collector.look()
    assert (parts.rows(), parts.images()) == ([], [])


def test_images_and_rows_are_kept_for_their_days(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    ((time_s,),) = parts.store.query("SELECT max(time_s) FROM rows")
    days = 86_400.0
    assert prune(parts.store, image_days=30, row_days=365, now_s=time_s + 29 * days) == {"rows": 0, "images": 0}
    assert prune(parts.store, image_days=30, row_days=365, now_s=time_s + 31 * days) == {"rows": 0, "images": 1}
    assert parts.rows("kept, sha256") == [(0, RED_SHA256), (0, None), (0, RED_SHA256)]
    parts.tap(2, "http_raw")
    parts.collector.look()
    assert parts.images() == [RED_SHA256]
    assert prune(parts.store, image_days=30, row_days=365, now_s=time_s + 366 * days)["rows"] == 4


def test_pruning_lets_others_write_between_two_folders_of_images_and_visits_only_what_it_changes(parts: Parts) -> None:
    for name in ("ab", "cd"):
        (parts.store.folder / "images" / name).mkdir()
    other = sqlite3.connect(parts.store.folder / "journal.sqlite", timeout=0, isolation_level=None)
    updates, selects, writes = [], [], 0

    def see(statement: str) -> None:
        nonlocal writes
        if statement.startswith("BEGIN"):  # fails if the journal is held from the folder before
            other.execute("INSERT INTO done VALUES (?, 1e18)", (writes,))
            writes += 1
        elif statement.startswith("UPDATE rows"):
            updates.append(statement)
        elif statement.startswith("SELECT DISTINCT sha256"):
            selects.append(statement)

    parts.store._connection.set_trace_callback(see)
    prune(parts.store, image_days=30, row_days=365, now_s=time.time())
    parts.store._connection.set_trace_callback(None)
    other.close()
    assert writes == 3  # one for the rows, and one for each folder
    for statement, index in ((updates[0], "rows_kept"), (selects[0], "rows_sha256")):
        ((_, _, _, plan),) = parts.store.query(f"EXPLAIN QUERY PLAN {statement}")
        assert f"USING INDEX {index}" in plan


def test_a_request_stays_known_while_its_file_is_in_the_spool(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    later = time.time() + 2 * 86_400
    prune(parts.store, image_days=30, row_days=365, now_s=later, spooled=["1"])
    assert parts.store.is_done("1")
    prune(parts.store, image_days=30, row_days=365, now_s=later)
    assert not parts.store.is_done("1")


def test_forgetting_beside_a_collector_at_work_leaves_no_row_of_what_is_forgotten(tmp_path: Path) -> None:
    with journal_in(tmp_path / "journal", make=True) as store:
        parts = Parts(tmp_path, store)
        for number in range(60):
            parts.tap(number, "grpc_full" if number % 3 else "grpc_three_images")

        def forget_all() -> None:
            with journal_in(tmp_path / "journal", make=False) as other:
                for _ in range(3):
                    forget(other, parts.spool, "mine.0")

        thread = threading.Thread(target=forget_all)
        thread.start()
        while tap_files(parts.spool):
            parts.collector.look()
        thread.join()
        with journal_in(tmp_path / "journal", make=False) as other:
            forget(other, parts.spool, "mine.0")
        assert len(parts.rows()) == 60
        assert parts.store.query("SELECT count(*) FROM rows WHERE client_id = 'mine.0'") == [(0,)]


def test_a_jump_of_the_clock_puts_pruning_off() -> None:
    pruning = PruningSchedule(now_s=1e9, monotonic_s=0)
    assert not pruning.is_due(now_s=1e9 + 30, monotonic_s=30)
    assert pruning.is_due(now_s=1e9 + 61, monotonic_s=61)
    assert not pruning.is_due(now_s=1e9 + 90 * 86_400, monotonic_s=3650)  # three months in an hour
    assert not pruning.is_due(now_s=1e9 + 4000, monotonic_s=4000)  # and back
    assert not pruning.is_due(now_s=1e9 + 7599, monotonic_s=7599)
    assert pruning.is_due(now_s=1e9 + 7601, monotonic_s=7601)


DAY_S = 86_400.0


@pytest.mark.parametrize("off_days", [365, -10, 4])
def test_a_clock_that_is_far_from_the_last_pruning_removes_nothing_until_somebody_prunes_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_days: float
) -> None:
    now_s, said = time.time(), list[str]()
    monkeypatch.setattr(run.time, "time", lambda: now_s)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = read_settings(write_gateway(tmp_path, tls=False, observe={"image_days": 30, "row_days": 30}))
    settings.spool.mkdir(parents=True)
    with Store.of(settings, make=True) as store:
        parts = Parts(settings.folder, store)
        parts.tap(1)
        parts.collector.look()
        store.write("UPDATE rows SET time_s = ?", [(now_s - 29.5 * DAY_S,)])
        now_s += 2 * DAY_S  # the collector stood still over a weekend
        store.write("UPDATE rows SET time_s = ?", [(now_s - 29.5 * DAY_S,)])
        run.prune_if_sure(store, settings, say=said.append)
        assert (said, status_of(settings).pruning_put_off) == ([], "")
        now_s += off_days * DAY_S
        run.prune_if_sure(store, settings, say=said.append)
        assert len(parts.rows()) == 3
        assert f"{abs(off_days)}.0 days {'after' if off_days > 0 else 'before'} the last pruning" in said[0]
        assert f"slipway journal prune {settings.file}" in said[0]
        assert status_of(settings).lines()[-1] == said[0]
        run.prune_now(store, settings)
        assert len(parts.rows()) == (0 if off_days > 0 else 3)
        run.prune_if_sure(store, settings, say=said.append)
        assert (len(said), status_of(settings).pruning_put_off) == (1, "")


def test_a_journal_without_a_time_of_the_last_pruning_takes_that_of_its_newest_row(tmp_path: Path) -> None:
    with journal_in(tmp_path / "journal", make=True) as store:
        assert put_off(store, image_days=30, now_s=time.time()) == ""
        parts = Parts(tmp_path, store)
        parts.tap(1)
        parts.collector.look()
        store.write("DROP TABLE pruned", [()])
        store.write("UPDATE rows SET time_s = 1e9", [()])
    with journal_in(tmp_path / "journal", make=True) as store:
        assert put_off(store, image_days=30, now_s=1e9 + DAY_S) == ""
        assert "10.0 days after" in put_off(store, image_days=30, now_s=1e9 + 10 * DAY_S)
        store.write("DROP TABLE pruned", [()])
        store.write("UPDATE rows SET time_s = 'today'", [()])  # somebody changed it by hand
    with journal_in(tmp_path / "journal", make=True) as store:
        assert "days after" in put_off(store, image_days=30, now_s=1e9)
