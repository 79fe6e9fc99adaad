"""The journal without a server: every row once, whatever a kill left behind."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.cli import journal as cli
from slipway.contract import StorageError
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal import spool as spools
from slipway.operations.journal.collector import FILES, PARITY
from slipway.operations.journal.reading import read_columns
from slipway.operations.journal.replay import NotYetError
from slipway.operations.journal.spool import TapFile, tap_files
from slipway.operations.journal.store import Store, image_path, read_image, sha256_of
from slipway.operations.watch.rows import ClassDirections
from tests.support import taps
from tests.support.gateways import write_gateway
from tests.support.taps import BUNDLE, Parts, changed, recorded, set_header
from tests.support.v2_requests import RED

RED_SHA256 = sha256_of(RED)


parts = taps.parts


def test_a_tap_file_becomes_rows_an_image_and_counters_and_is_gone(parts: Parts) -> None:
    path = parts.tap(1)
    done = parts.collector.look()
    assert (done.taken, done.rows, done.left, path.exists()) == (1, 3, 0, False)
    shown = "image, client_id, status, label, parity, bytes, sampled_with, arm, kept, width, height, format"
    assert parts.rows(shown) == [
        (0, "three.0", 0, "red", "equal", len(RED), 1.0, "stable", 1, 60, 50, "PNG"),
        (1, "three.0", 2, None, "equal", 12, 1.0, "stable", 0, None, None, None),
        (2, "three.0", 0, "red", "equal", len(RED), 1.0, "stable", 1, 60, 50, "PNG"),
    ]
    ((probability, embedding, brightness),) = parts.store.query(
        "SELECT probability, embedding, brightness FROM rows WHERE image = 0"
    )
    assert np.frombuffer(probability, "<f4").tolist() == [0, 0, 1]
    assert np.frombuffer(embedding, "<f4").tolist() == [1, 2, 3, 4]
    assert brightness == pytest.approx(220 / 255 / 3)
    assert parts.images() == [RED_SHA256]
    assert image_path(parts.store.folder, RED_SHA256).read_bytes() == RED
    assert parts.store.counters() == {
        (FILES, ("taken",)): 1,
        (PARITY, ("colours", "equal")): 3,
        ("rows", ("colours", "stable")): 3,
    }


def test_a_damaged_image_is_mended_when_it_comes_again(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    path = image_path(parts.store.folder, RED_SHA256)
    path.write_bytes(b"")
    assert read_image(parts.store.folder, RED_SHA256) is None
    parts.tap(2)
    parts.collector.look()
    assert read_image(parts.store.folder, RED_SHA256) == RED


@pytest.mark.parametrize("name", [b"t_\xff\xfe.pb", b"t_.pb", b"t_a\nb.pb", b"t_1.json", b"t_" + b"1" * 200 + b".pb"])
def test_a_file_that_envoy_does_not_name_so_stops_nobody(parts: Parts, name: bytes) -> None:
    (parts.spool / os.fsdecode(name)).write_bytes(b"")
    parts.tap(1)
    done = parts.collector.look()
    assert (done.taken, done.left) == (1, 0)


def test_everything_is_for_its_user_alone(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    for path in [parts.store.folder, *parts.store.folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_file_that_is_still_there_after_the_commit_gives_no_second_row(parts: Parts) -> None:
    for _ in range(3):
        parts.tap(1)
        parts.collector.look()
    assert len(parts.rows()) == 3
    assert parts.store.counters()[FILES, ("taken",)] == 1


def test_files_that_are_not_whole_wait_and_are_given_up_by_the_monotonic_clock(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(spools.time, "monotonic", lambda: now)
    whole = recorded("grpc_three_images")
    half, empty = parts.tap(1, content=whole[:700]), parts.tap(2, content=b"")
    assert (parts.collector.look().left, half.exists()) == (2, True)
    now += 4
    half.write_bytes(whole[:900])
    os.utime(half, (0, 0))  # the machine's clock counts for nothing
    assert parts.collector.look().left == 2
    now += 3
    assert (parts.collector.look().left, empty.exists()) == (1, False)
    half.write_bytes(whole)
    assert parts.collector.look().rows == 3
    assert parts.store.counters()[FILES, ("unfinished",)] == 1


def test_what_cannot_be_read_is_counted_by_its_kind_and_does_not_stop_the_rest(parts: Parts) -> None:
    truncated = changed("http_raw")
    truncated.http_buffered_trace.request.body.truncated = True
    parts.tap(1, content=truncated.SerializeToString())
    unsampled = changed("http_raw")
    set_header(unsampled.http_buffered_trace.request, "slipway-sampled", None)
    parts.tap(2, content=unsampled.SerializeToString())
    parts.tap(3, "grpc_failed")
    parts.tap(4, "http_compressed")
    (parts.spool / "something else").write_text("x")
    (parts.spool / "t_5.pb").symlink_to("/dev/zero")
    assert parts.collector.look().rows == 2
    counted = {labels[0]: value for (name, labels), value in parts.store.counters().items() if name == FILES}
    assert counted == {"truncated": 1, "unreadable": 1, "failed": 1, "taken": 1}
    assert sum(line.startswith("alert: a tap file is not taken in") for line in parts.said) >= 1


def test_a_server_that_is_gone_keeps_the_files_and_nothing_is_lost(parts: Parts) -> None:
    parts.replayer.gone = True
    for number in range(3):
        parts.tap(number)
    done = parts.collector.look()
    assert (done.taken, done.left, len(tap_files(parts.spool))) == (0, 3, 3)
    assert parts.said == ["waits, and 3 tap files with it: nobody answers"]
    parts.replayer.gone = False
    assert parts.collector.look().rows == 9


def test_a_replay_that_differs_is_counted_and_said(parts: Parts) -> None:
    parts.replayer.changes = {"score": 0.9995557069778442 + 2e-5}
    parts.tap(1, "http_raw")
    assert len(parts.collector.look().differ) == 1
    assert parts.said[0].startswith("alert: colours answered request 1, image 0, otherwise")
    assert parts.store.counters()[PARITY, ("colours", "differs")] == 1


def test_a_replay_that_differs_is_said_although_the_disk_is_full_after_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.replayer.changes = {"score": 0.9995557069778442 + 2e-5}
    add = parts.store.add

    def full(request: str, *arguments: Any, **options: Any) -> Any:
        if request == "2":
            raise StorageError("full")
        return add(request, *arguments, **options)

    monkeypatch.setattr(parts.store, "add", full)
    for number in (1, 2):
        os.utime(parts.tap(number, "http_raw"), (number, number))
    with pytest.raises(StorageError, match="full"):
        parts.collector.look()
    assert [sentence[:36] for sentence in parts.said] == ["alert: colours answered request 1, i"]


def test_what_was_not_asked_for_is_taken_from_the_replay(parts: Parts) -> None:
    parts.tap(1, "grpc_label_alone")
    parts.collector.look()
    shown = "label, score, class_id, status, bundle, replayed_bundle, parity, kept"
    assert parts.rows(shown) == [("red", 0.9995557069778442, 2, 0, BUNDLE, BUNDLE, "not_comparable", 1)]


def test_a_label_without_a_score_is_shown_where_nobody_was_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = write_gateway(tmp_path, tls=False, observe={})
    settings = read_settings(path)
    with Store.of(settings, make=True) as store:
        parts = Parts(settings.folder, store)
        monkeypatch.setattr(parts.replayer, "ask", lambda *_, **__: [None])
        parts.tap(1, "grpc_label_alone")
        parts.collector.look()
        assert parts.rows("label, score, parity") == [("red", None, "not_replayed")]
    arguments = cli.parser().parse_args(["rows", str(path)])
    cli.main(arguments)
    assert "  red -  " in capsys.readouterr().out


def test_a_full_disk_loses_nothing_and_the_journal_goes_on_when_there_is_room(parts: Parts) -> None:
    for number in range(40):
        parts.tap(number)
    connection = parts.store._connection
    ((pages,),) = parts.store.query("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageError, match="full; free some space"):
        parts.collector.look()
    taken = 40 - len(tap_files(parts.spool))
    assert len(parts.rows()) == 3 * taken < 120
    connection.execute("PRAGMA max_page_count = 100000")
    parts.collector.look()
    assert len(parts.rows()) == 120


def test_a_file_that_vanishes_while_it_is_read_is_nobodys_error(parts: Parts) -> None:
    path = parts.tap(1)
    file = TapFile(path, 1, 1)
    path.unlink()
    assert parts.collector._take(file) == []


def test_the_files_of_a_server_that_is_gone_do_not_hold_up_those_of_another(parts: Parts) -> None:
    candidate = changed("http_raw")
    set_header(candidate.http_buffered_trace.response, "slipway-arm", "candidate")
    parts.tap(1, content=candidate.SerializeToString())
    parts.tap(2, "http_raw")
    ask = parts.replayer.ask

    def one_is_gone(*words: object, arm: str, **named: object) -> object:
        if arm == "candidate":
            raise NotYetError("the candidate is gone")
        return ask(*words, arm=arm, **named)  # type: ignore[arg-type]

    parts.replayer.ask = one_is_gone  # type: ignore[method-assign, assignment]
    done = parts.collector.look()
    assert (done.taken, done.left, parts.rows("request, arm")) == (1, 1, [("2", "stable")])


def test_the_watch_reads_what_was_replayed_by_the_bundle_that_answered(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    parts.replayer.changes = {"bundle": "f" * 64}
    parts.tap(2, "http_raw")
    parts.collector.look()
    found = read_columns(parts.store, "colours", bundle=BUNDLE)
    assert found.id.tolist() == [1, 3]
    assert found.sampled_with.tolist() == [1, 1]
    assert found.probability.tolist() == [[0, 0, 1]] * 2
    rows = found.watched(ClassDirections.of(np.eye(4), np.arange(4)))
    assert rows.norm.tolist() == pytest.approx([30**0.5] * 2)
    assert rows.class_id.tolist() == [2, 2]
    assert rows.brightness is not None
    assert rows.brightness.tolist() == pytest.approx([220 / 255 / 3] * 2)
    assert len(read_columns(parts.store, "colours", bundle=BUNDLE, after=3).id) == 0
    assert (
        len(read_columns(parts.store, "cats", bundle=BUNDLE).watched(ClassDirections.of(np.eye(4), np.arange(4)))) == 0
    )
