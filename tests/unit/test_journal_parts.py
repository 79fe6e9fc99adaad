"""The parts of the journal one by one: parity, pictures, bound, folders, settings, status and metrics."""

import contextlib
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from slipway.contract import SpecError, StorageError
from slipway.operations.endpoint import endpoint
from slipway.operations.gateway.process import Gateway
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal import store as stores
from slipway.operations.journal.folders import in_memory, private_folder
from slipway.operations.journal.metrics import JournalMetrics
from slipway.operations.journal.pictures import measure
from slipway.operations.journal.rows import parity
from slipway.operations.journal.spool import Bound, read_dropped, tap_files
from slipway.operations.journal.status import last_rows, status_of
from slipway.operations.journal.store import Store, only_collector
from slipway.operations.journal.tapped import TappedAnswer
from tests.support.gateways import write_gateway
from tests.support.image_files import encode
from tests.support.journal_rows import journal_in
from tests.support.taps import BUNDLE, Parts, red
from tests.support.v2_requests import RED

ALONE = red(candidates=())


LABELS, SCORES, IDS = ("red", "blue"), (0.9995557069778442, 0.00022215580975171179), (2, 0)


@pytest.mark.parametrize(
    ("served", "again", "expected"),
    [
        (TappedAnswer(("red",), (0.9995557,), (2,), 0, BUNDLE), ALONE, "equal"),
        (TappedAnswer(("red",), (0.9995507,), (2,), 0, BUNDLE), ALONE, "equal"),
        (TappedAnswer(("red",), (0.99953,), (2,), 0, BUNDLE), ALONE, "differs"),
        (TappedAnswer(("red",), (float("nan"),), (2,), 0, BUNDLE), ALONE, "differs"),
        (TappedAnswer(("blue",), (0.9995557,), (0,), 0, BUNDLE), ALONE, "differs"),
        (TappedAnswer(LABELS, SCORES, IDS, 0, BUNDLE), red(), "equal"),
        (TappedAnswer(LABELS, SCORES, IDS, 0, BUNDLE), ALONE, "differs"),
        (TappedAnswer((), (), (), 2, BUNDLE), ALONE, "differs"),
        (TappedAnswer((), (), (), 2, BUNDLE), red(2), "equal"),
        (TappedAnswer(("red",), (0.1,), (2,), 0, BUNDLE), red(bundle="f" * 64), "other_bundle"),
        (TappedAnswer(("red",), (0.9995557,), (2,), 0, None), ALONE, "not_comparable"),
        (TappedAnswer(bundle=BUNDLE), ALONE, "not_comparable"),
        (TappedAnswer(scores=(0.9995557, 0.0), bundle=BUNDLE), ALONE, "equal"),
        (TappedAnswer(status=0, bundle=BUNDLE), ALONE, "equal"),
        (TappedAnswer(("red",), (0.9995557,), (2,), 0, BUNDLE), None, "not_replayed"),
    ],
)
def test_parity_is_claimed_only_where_the_same_bundle_says_the_same(
    served: TappedAnswer, again: object, expected: str
) -> None:
    assert parity(served, again) == expected  # type: ignore[arg-type]


def test_two_collectors_at_once_and_a_foreign_database_are_refused(tmp_path: Path) -> None:
    with only_collector(tmp_path), pytest.raises(SpecError, match="one is enough"), only_collector(tmp_path):
        pass
    with pytest.raises(SpecError, match=r"no journal; .* gateway\.yaml makes one"), journal_in(tmp_path, make=False):
        pass
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="not a database; restore a copy of it"), journal_in(tmp_path, make=False):
        pass
    (tmp_path / "journal.sqlite").unlink()
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    with pytest.raises(StorageError, match=r"no such table: .*; restore a copy"), journal_in(tmp_path, make=False):
        pass
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(SpecError, match="of version 7, and this release reads 2"), journal_in(tmp_path, make=False):
        pass


def test_a_database_that_another_process_holds_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "BUSY_S", 0.01)
    with journal_in(tmp_path, make=True):
        pass
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked; another process has held"), journal_in(tmp_path, make=False):
        pass
    other.close()


def test_several_that_open_a_new_journal_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """As a collector and a watch that start together: SQLite does not wait where two change a database's mode."""
    ready = threading.Barrier(3)

    def opened(folder: Path) -> int:
        ready.wait()
        with journal_in(folder, make=True) as store:
            return len(store.counters())

    with ThreadPoolExecutor(3) as three:
        for number in range(30):  # without a wait, one in seven failed
            folder = tmp_path / str(number)
            folder.mkdir(mode=0o700)
            assert list(three.map(opened, [folder] * 3)) == [0, 0, 0]


def test_only_what_sqlite_calls_damaged_is_to_be_moved_away(tmp_path: Path) -> None:
    with journal_in(tmp_path, make=True) as store:
        with pytest.raises(StorageError, match=r"decode to UTF-8.*; restore a copy"):
            store.query("SELECT CAST(x'ff' AS TEXT)")
        with pytest.raises(StorageError, match=r"constraint failed.*; try again; .* \(dmesg\)"):
            store.write("INSERT INTO done VALUES (NULL, NULL)", [()])
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):  # a bug stays a bug
        store.query("SELECT 1")


def test_a_copy_that_cannot_be_written_names_both_places(tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    target.touch()
    with (
        journal_in(tmp_path / "journal", make=True) as store,
        contextlib.closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as copy,
        pytest.raises(
            StorageError, match=r"journal\.sqlite cannot be copied to .*copy\.sqlite: attempt to write a read"
        ),
    ):
        store.copy_into(copy, at=target)


def test_the_bound_drops_what_was_tapped_last_and_counts_it_over_restarts(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"t_{number}.pb"
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    (tmp_path / "dropped.json").write_text("damaged")
    for _ in range(2):
        Bound(tmp_path, counted_in=tmp_path / "dropped.json").hold(limit_bytes=4500)
    assert [file.request for file in tap_files(tmp_path)] == ["0", "1", "2", "3"]
    assert read_dropped(tmp_path / "dropped.json") == 6
    assert Bound(tmp_path / "missing", counted_in=tmp_path / "dropped.json").hold(limit_bytes=1) == 0


def test_what_is_dropped_while_its_number_cannot_be_written_is_counted_later(tmp_path: Path) -> None:
    counted, blocked = tmp_path / "dropped.json", tmp_path / "dropped.new"
    counted.write_text('{"dropped": 1}')
    bound = Bound(tmp_path, counted_in=counted)
    blocked.mkdir()  # as a full disk, nobody can write there
    for number in range(3):
        (tmp_path / f"t_{number}.pb").write_bytes(bytes(1000))
        assert bound.hold(limit_bytes=500) == 1
        assert bound.problem == f"{counted}: Is a directory"
    assert read_dropped(counted) == 1
    blocked.rmdir()
    assert bound.hold(limit_bytes=500) == 0
    assert (read_dropped(counted), bound.problem) == (4, "")
    assert bound.hold(limit_bytes=500) == 0
    assert read_dropped(counted) == 4


def test_the_gateway_counts_what_it_drops_while_its_own_folder_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = read_settings(write_gateway(tmp_path, tls=False, observe={"spool_mib": 0.001}))
    settings.spool.mkdir(parents=True)
    (blocked := settings.folder / "dropped.new").mkdir()
    said: list[str] = []
    plan: Any = SimpleNamespace(settings=settings)
    gateway = Gateway(plan, event=lambda _, message: said.append(message))
    for number in range(4):
        (settings.spool / f"t_{number}.pb").write_bytes(bytes(1000))
        gateway._spool_next = 0.0
        gateway._hold_spool()
    (sentence,) = said
    assert "is full, and what is tapped is dropped" in sentence
    assert f"{settings.folder / 'dropped.json'}: Is a directory" in sentence
    blocked.rmdir()
    gateway._spool_next = 0.0
    gateway._hold_spool()
    assert read_dropped(settings.folder / "dropped.json") == 3


def test_a_tmpfs_is_told_from_other_folders(tmp_path: Path) -> None:
    assert in_memory(Path("/dev/shm"))
    assert not in_memory(Path("/proc/self"))
    assert not in_memory(tmp_path / "missing")


def test_a_file_that_does_not_fit_into_the_bound_takes_no_other_with_it(tmp_path: Path) -> None:
    for number, size in enumerate((1000, 9000, 1000, 1000)):
        path = tmp_path / f"t_{number}.pb"
        path.write_bytes(bytes(size))
        os.utime(path, (number, number))
    assert Bound(tmp_path, counted_in=tmp_path / "dropped.json").hold(limit_bytes=4500) == 1
    assert [file.request for file in tap_files(tmp_path)] == ["0", "2", "3"]


def test_a_picture_that_cannot_be_decoded_is_no_error() -> None:
    for content in (b"", b"GIF89a", RED[:60], b"\xff\xd8\xff" + bytes(100)):
        assert measure(content).brightness is None


COLOURS = {"RGB": (120, 60, 0), "L": 60, "RGBA": (120, 60, 0, 9), "I;16": 15420}


MODES = {
    "JPEG": ("RGB", "L"),
    "PNG": tuple(COLOURS),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": tuple(COLOURS),
    "BMP": ("RGB", "L"),
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_brightness_is_the_mean_of_the_pixels_in_every_format(kind: str, mode: str) -> None:
    content = encode(Image.new(mode, (900, 700), COLOURS[mode]), kind)  # type: ignore[arg-type]
    found = measure(content)
    assert (found.format, found.width, found.height) == (kind, 900, 700)
    assert found.brightness == pytest.approx(60 / 255, abs=0.01)


def test_settings_say_where_everything_is(tmp_path: Path) -> None:
    path = write_gateway(tmp_path, tls=False, observe={"journal": "j", "spool_mib": 1.5})
    settings = read_settings(path)
    assert (settings.journal, settings.spool) == (tmp_path / "j", settings.folder / "spool")
    assert settings.observe is not None
    assert settings.observe.spool_bytes == 1536 * 1024
    for wrong in ({"share": 0}, {"share": 1.01}, {"per_second": 0}, {"row_days": -1}, {"shares": 1}):
        with pytest.raises(SpecError, match=f"observe.{next(iter(wrong))}"):
            read_settings(write_gateway(tmp_path, tls=False, observe=wrong))


def test_a_folder_that_others_use_is_not_taken(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    private_folder(shared, what="observe.spool")
    assert shared.stat().st_mode & 0o777 == 0o700
    shared.chmod(0o755)
    (shared / "thesis.txt").write_text("mine")
    for open_it in (lambda: private_folder(shared, what="observe.spool"), journal_in(shared, make=True).__enter__):
        with pytest.raises(SpecError, match=r"others may use .*shared .mode 0755.*; give a folder of its own"):
            open_it()
    assert shared.stat().st_mode & 0o777 == 0o755
    with pytest.raises(StorageError, match="a part of the path is a file"):
        private_folder(shared / "thesis.txt" / "spool", what="observe.spool")
    with pytest.raises(StorageError, match="File exists; a file stands there; give another path"):
        private_folder(shared / "thesis.txt", what="observe.spool")


def test_status_rows_and_metrics_tell_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.client

    from slipway.serving import Ports

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = read_settings(write_gateway(tmp_path, tls=False, observe={}))
    settings.spool.mkdir(parents=True)
    with Store.of(settings, make=True) as store:
        parts = Parts(settings.folder, store)
        parts.tap(1)
        parts.collector.look()
        parts.tap(2, content=b"half")
        counters = store.counters()
    found = status_of(settings)
    assert (found.rows, found.images, found.parity, found.spool_files) == (3, 1, {"equal": 3}, 1)
    assert "3 rows" in found.lines()[0]
    assert [row["id"] for row in last_rows(settings, last=2, classifier="colours")] == [3, 2]
    assert last_rows(settings, last=2, classifier="cats") == []
    metrics, port = JournalMetrics(settings.spool, dropped_in=settings.folder / "dropped.json"), Ports.free().http
    metrics.counters = counters
    with endpoint(port, metrics, setting="observe.metrics_port", say=print):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        said = connection.getresponse().read().decode()
        connection.close()
    assert 'slipway_journal_rows_total{arm="stable",classifier="colours"} 3.0' in said
    assert 'slipway_journal_parity_total{classifier="colours",result="equal"} 3.0' in said
    assert 'slipway_journal_files_total{result="taken"} 1.0' in said
    assert "slipway_journal_spool_files 1.0" in said
    assert "slipway_journal_dropped_total 0.0" in said
