"""The journal without a server: every row once, whatever a kill left behind; nothing of what was forgotten."""

import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slipway.contract import SpecError, StorageError
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal import spool as spools
from slipway.operations.journal.collector import FILES, PARITY, Collector, Pruning
from slipway.operations.journal.folders import private_folder
from slipway.operations.journal.forget import forget
from slipway.operations.journal.metrics import Metrics, metrics_endpoint
from slipway.operations.journal.pictures import measure
from slipway.operations.journal.reading import read_columns
from slipway.operations.journal.replay import NotYetError
from slipway.operations.journal.rows import parity
from slipway.operations.journal.spool import Bound, TapFile, read_dropped, tap_files
from slipway.operations.journal.status import last_rows, status_of
from slipway.operations.journal.store import Store, image_path, only_collector, sha256_of
from slipway.operations.journal.tapped import Served
from slipway.operations.watch.rows import ClassMeans
from tests.support.gateways import write_gateway
from tests.support.image_files import encode
from tests.support.taps import BUNDLE, Replayed, changed, recorded, red, set_header
from tests.support.v2_requests import RED

RED_SHA256 = sha256_of(RED)


class Parts:
    """A spool, a journal and a collector in a folder."""

    def __init__(self, folder: Path, store: Store, **changes: object) -> None:
        self.folder, self.store = folder, store
        self.spool = folder / "spool"
        self.spool.mkdir(exist_ok=True)
        self.said: list[str] = []
        self.replayer = Replayed(**changes)
        self.collector = Collector(self.spool, store, self.replayer, say=self.said.append)  # type: ignore[arg-type]

    def tap(self, request: str | int, name: str = "grpc_three_images", content: bytes | None = None) -> Path:
        path = self.spool / f"t_{request}.pb"
        path.write_bytes(recorded(name) if content is None else content)
        return path

    def rows(self, columns: str = "request, image") -> list[tuple[object, ...]]:
        return self.store.query(f"SELECT {columns} FROM rows ORDER BY id")

    def images(self) -> list[str]:
        return sorted(path.name for path in (self.store.folder / "images").glob("*/*"))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with Store.open(tmp_path / "journal", make=True) as store:
        yield Parts(tmp_path, store)


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


def test_an_image_that_was_written_before_a_kill_is_swept_and_one_with_a_row_is_not(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    for content in (b"of a killed collector", b"another"):
        path = image_path(parts.store.folder, sha256_of(content))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    path.rename(path.with_name(f".{path.name}.17"))
    assert parts.store.prune(image_days=30, row_days=365, now_s=time.time()) == {"rows": 0, "images": 2}
    assert parts.images() == [RED_SHA256]


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


ALONE = red(candidates=())
LABELS, SCORES, IDS = ("red", "blue"), (0.9995557069778442, 0.00022215580975171179), (2, 0)


@pytest.mark.parametrize(
    ("served", "again", "expected"),
    [
        (Served(("red",), (0.9995557,), (2,), 0, BUNDLE), ALONE, "equal"),
        (Served(("red",), (0.9995507,), (2,), 0, BUNDLE), ALONE, "equal"),
        (Served(("red",), (0.99953,), (2,), 0, BUNDLE), ALONE, "differs"),
        (Served(("red",), (float("nan"),), (2,), 0, BUNDLE), ALONE, "differs"),
        (Served(("blue",), (0.9995557,), (0,), 0, BUNDLE), ALONE, "differs"),
        (Served(LABELS, SCORES, IDS, 0, BUNDLE), red(), "equal"),
        (Served(LABELS, SCORES, IDS, 0, BUNDLE), ALONE, "differs"),
        (Served((), (), (), 2, BUNDLE), ALONE, "differs"),
        (Served((), (), (), 2, BUNDLE), red(2), "equal"),
        (Served(("red",), (0.1,), (2,), 0, BUNDLE), red(bundle="f" * 64), "other_bundle"),
        (Served(("red",), (0.9995557,), (2,), 0, None), ALONE, "not_comparable"),
        (Served(bundle=BUNDLE), ALONE, "not_comparable"),
        (Served(scores=(0.9995557, 0.0), bundle=BUNDLE), ALONE, "equal"),
        (Served(status=0, bundle=BUNDLE), ALONE, "equal"),
        (Served(("red",), (0.9995557,), (2,), 0, BUNDLE), None, "not_replayed"),
    ],
)
def test_parity_is_claimed_only_where_the_same_bundle_says_the_same(
    served: Served, again: object, expected: str
) -> None:
    assert parity(served, again) == expected  # type: ignore[arg-type]


def test_what_was_not_asked_for_is_taken_from_the_replay(parts: Parts) -> None:
    parts.tap(1, "grpc_label_alone")
    parts.collector.look()
    shown = "label, score, class_id, status, bundle, replayed_bundle, parity, kept"
    assert parts.rows(shown) == [("red", 0.9995557069778442, 2, 0, BUNDLE, BUNDLE, "not_comparable", 1)]


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


def test_a_row_is_forgotten_by_its_number(parts: Parts) -> None:
    parts.tap("a")
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
    assert parts.store.prune(image_days=30, row_days=365, now_s=time_s + 29 * days) == {"rows": 0, "images": 0}
    assert parts.store.prune(image_days=30, row_days=365, now_s=time_s + 31 * days) == {"rows": 0, "images": 1}
    assert parts.rows("kept, sha256") == [(0, RED_SHA256), (0, None), (0, RED_SHA256)]
    parts.tap(2, "http_raw")
    parts.collector.look()
    assert parts.images() == [RED_SHA256]
    assert parts.store.prune(image_days=30, row_days=365, now_s=time_s + 366 * days)["rows"] == 4


def test_a_request_stays_known_while_its_file_is_in_the_spool(parts: Parts) -> None:
    parts.tap(1)
    parts.collector.look()
    later = time.time() + 2 * 86_400
    parts.store.prune(image_days=30, row_days=365, now_s=later, spooled=["1"])
    assert parts.store.is_done("1")
    parts.store.prune(image_days=30, row_days=365, now_s=later)
    assert not parts.store.is_done("1")


def test_a_jump_of_the_clock_puts_pruning_off() -> None:
    pruning = Pruning(now_s=1e9, monotonic_s=0)
    assert not pruning.is_due(now_s=1e9 + 30, monotonic_s=30)
    assert pruning.is_due(now_s=1e9 + 61, monotonic_s=61)
    assert not pruning.is_due(now_s=1e9 + 90 * 86_400, monotonic_s=3650)  # three months in an hour
    assert not pruning.is_due(now_s=1e9 + 4000, monotonic_s=4000)  # and back
    assert not pruning.is_due(now_s=1e9 + 7599, monotonic_s=7599)
    assert pruning.is_due(now_s=1e9 + 7601, monotonic_s=7601)


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


def test_two_collectors_at_once_and_a_foreign_database_are_refused(tmp_path: Path) -> None:
    with only_collector(tmp_path), pytest.raises(SpecError, match="one is enough"), only_collector(tmp_path):
        pass
    with pytest.raises(SpecError, match="no journal; slipway journal run makes one"), Store.open(tmp_path, make=False):
        pass
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="not a database"), Store.open(tmp_path, make=False):
        pass
    (tmp_path / "journal.sqlite").unlink()
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(SpecError, match="of version 7, and this release reads 1"), Store.open(tmp_path, make=False):
        pass


def test_the_bound_drops_what_was_tapped_last_and_counts_it_over_restarts(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"t_{number}.pb"
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    (tmp_path / "dropped.json").write_text("damaged")
    for _ in range(2):
        bound = Bound(tmp_path, limit_bytes=4500, counted_in=tmp_path / "dropped.json")
        bound.hold()
    assert [file.request for file in tap_files(tmp_path)] == ["0", "1", "2", "3"]
    assert read_dropped(tmp_path / "dropped.json") == bound.dropped == 6
    assert Bound(tmp_path / "missing", limit_bytes=1, counted_in=tmp_path / "dropped.json").hold() == 0


def test_a_file_that_vanishes_while_it_is_read_is_nobodys_error(parts: Parts) -> None:
    path = parts.tap(1)
    file = TapFile(path, 1, 1)
    path.unlink()
    assert parts.collector._take(file, set()) == []


def test_the_files_of_a_server_that_is_gone_do_not_hold_up_those_of_another(parts: Parts) -> None:
    candidate = changed("http_raw")
    set_header(candidate.http_buffered_trace.response, "slipway-arm", "candidate")
    parts.tap(1, content=candidate.SerializeToString())
    parts.tap(2, "http_raw")
    ask = parts.replayer.ask

    def one_is_gone(*words: object, arm: str, **named: object) -> object:
        if arm == "candidate":
            raise NotYetError("the candidate is gone", arm=arm)
        return ask(*words, arm=arm, **named)  # type: ignore[arg-type]

    parts.replayer.ask = one_is_gone  # type: ignore[method-assign, assignment]
    done = parts.collector.look()
    assert (done.taken, done.left, parts.rows("request, arm")) == (1, 1, [("2", "stable")])


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
    for open_it in (lambda: private_folder(shared, what="observe.spool"), Store.open(shared, make=True).__enter__):
        with pytest.raises(SpecError, match=r"others may use .*shared .mode 0755.*; give a folder of its own"):
            open_it()
    assert shared.stat().st_mode & 0o777 == 0o755
    with pytest.raises(StorageError, match="a part of the path is a file"):
        private_folder(shared / "thesis.txt" / "spool", what="observe.spool")


def test_status_rows_and_metrics_tell_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.client

    from slipway.serving import Ports

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = read_settings(write_gateway(tmp_path, tls=False, observe={}))
    settings.spool.mkdir(parents=True)
    with Store.open(settings.journal, make=True) as store:
        parts = Parts(settings.folder, store)
        parts.tap(1)
        parts.collector.look()
        parts.tap(2, content=b"half")
        counters = store.counters()
    found = status_of(settings)
    assert (found.rows, found.images, found.parity, found.spool_files) == (3, 1, {"equal": 3}, 1)
    assert "3 rows" in found.lines()[0]
    assert [row["id"] for row in last_rows(settings.journal, last=2, classifier="colours")] == [3, 2]
    assert last_rows(settings.journal, last=2, classifier="cats") == []
    metrics, port = Metrics(settings.spool, dropped_in=settings.folder / "dropped.json"), Ports.free().http
    metrics.counters = counters
    with metrics_endpoint(port, metrics):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        said = connection.getresponse().read().decode()
        connection.close()
    assert 'slipway_journal_rows_total{arm="stable",classifier="colours"} 3.0' in said
    assert 'slipway_journal_parity_total{classifier="colours",result="equal"} 3.0' in said
    assert 'slipway_journal_files_total{result="taken"} 1.0' in said
    assert "slipway_journal_spool_files 1.0" in said
    assert "slipway_journal_dropped_total 0.0" in said


def test_forgetting_beside_a_collector_at_work_leaves_no_row_of_what_is_forgotten(tmp_path: Path) -> None:
    with Store.open(tmp_path / "journal", make=True) as store:
        parts = Parts(tmp_path, store)
        for number in range(60):
            parts.tap(number, "grpc_full" if number % 3 else "grpc_three_images")

        def forget_all() -> None:
            with Store.open(tmp_path / "journal", make=False) as other:
                for _ in range(3):
                    forget(other, parts.spool, "mine.0")

        thread = threading.Thread(target=forget_all)
        thread.start()
        while tap_files(parts.spool):
            parts.collector.look()
        thread.join()
        with Store.open(tmp_path / "journal", make=False) as other:
            forget(other, parts.spool, "mine.0")
        assert len(parts.rows()) == 60
        assert parts.store.query("SELECT count(*) FROM rows WHERE client_id = 'mine.0'") == [(0,)]


# The rule of guard.lua, for what no test could send: days of requests. The real one is asked in tests/serving.
def sampled(
    arrivals_s: np.ndarray, *, share: float, per_second: float, draw: random.Random
) -> list[tuple[float, float]]:
    start, count, rate = 0.0, 0, 0.0
    found = []
    for now in arrivals_s:
        passed = now - start
        if passed < 0 or passed >= 1:
            start, rate, count = now, count / passed if passed > 0 else 0.0, 0
        count += 1
        probability = min(share, per_second / max(rate, count))
        if draw.random() < probability:
            found.append((now, probability))
    return found


@pytest.mark.parametrize("rate", [0.2, 5.0, 40.0, 400.0])
def test_the_sample_holds_its_share_and_its_rate_and_weighs_back_to_all_requests(rate: float) -> None:
    draw = np.random.default_rng(22)
    seconds, runs, weighed, counts = 60.0, 40 if rate > 100 else 100, [], []
    for run in range(runs):
        arrivals = np.sort(draw.uniform(0, seconds, draw.poisson(rate * seconds))) + 1e9
        found = sampled(arrivals, share=0.5, per_second=5, draw=random.Random(run))
        counts.append(len(found))
        weighed.append(sum(1 / probability for _, probability in found) - len(arrivals))
    error = float(np.mean(weighed)) / (float(np.std(weighed)) / runs**0.5)
    assert abs(error) < 3.5
    assert np.mean(counts) / seconds <= 5 * 1.1
    if rate <= 5:
        assert np.mean(counts) == pytest.approx(0.5 * rate * seconds, rel=0.1)


def test_a_burst_and_a_clock_that_goes_back_are_bounded() -> None:
    burst = 1e9 + np.arange(5000) / 5000  # a second of 5,000 after silence
    assert len(sampled(burst, share=1, per_second=5, draw=random.Random(1))) < 5 * (1 + np.log(5000)) + 30
    back = np.concatenate([burst, burst - 3600])
    assert len(sampled(back, share=1, per_second=5, draw=random.Random(1))) < 2 * (5 * (1 + np.log(5000)) + 30)


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
    rows = found.watched(ClassMeans.of(np.eye(4), np.arange(4)))
    assert rows.norm.tolist() == pytest.approx([30**0.5] * 2)
    assert rows.class_id.tolist() == [2, 2]
    assert rows.brightness is not None
    assert rows.brightness.tolist() == pytest.approx([220 / 255 / 3] * 2)
    assert len(read_columns(parts.store, "colours", bundle=BUNDLE, after=3).id) == 0
    assert len(read_columns(parts.store, "cats", bundle=BUNDLE).watched(ClassMeans.of(np.eye(4), np.arange(4)))) == 0
