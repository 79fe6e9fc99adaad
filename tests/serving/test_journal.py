"""The journal behind a real Envoy and a real tritonserver: each sampled answer is a row, once, and no request waits."""

import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.client import Client
from slipway.contract import Decision
from slipway.operations.gateway import routes
from slipway.operations.journal.collector import FILES
from slipway.operations.journal.retention import prune
from slipway.operations.journal.settings import SERVERS, ArmPorts
from slipway.operations.journal.spool import read_dropped, tap_files
from slipway.operations.journal.status import last_rows
from slipway.operations.journal.store import Store
from tests.serving.conftest import EXAMPLE
from tests.support.gateways import KEYS, free_beside, needs_envoy
from tests.support.journals import Journal, Traffic, pictures, tapped, tmpfs, until
from tests.support.v2_requests import RED

pytestmark = needs_envoy
RAW = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
INFER = "/v2/models/colours/infer"
ADDRESS, SECRET = "203.0.113.7", "c2VjcmV0OnNlY3JldA"
_settings_numbers = itertools.count()


Make = Callable[..., "contextlib.AbstractContextManager[Journal]"]


@pytest.fixture
def journal(own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`with journal(share=1, …) as one:` is a gateway in front of the server of this file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(**observe: Any) -> contextlib.AbstractContextManager[Journal]:
        folder = tmp_path / f"gateway{next(_settings_numbers)}"
        return tapped(folder, ports=own_server.ports, repository=EXAMPLE, **observe)

    return make


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.nightly)])
def test_after_kills_of_the_collector_the_rows_are_the_sampled_answers(journal: Make, kills: int) -> None:
    draw = random.Random(kills)
    with journal() as one:
        with Traffic(one) as traffic:
            for _ in range(kills):
                process, before = one.collect(), one.rows()
                until(lambda: one.rows() > before + 5)  # noqa: B023
                time.sleep(draw.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                process.wait()
        time.sleep(0.3)  # Envoy writes a tap after its answer
        one.empty()
        assert traffic.errors == 0
        assert traffic.answers > 50
        found = one.run("status")
        assert found["rows"] == traffic.answers
        assert found["parity"] == {"equal": traffic.answers}
        assert (found["spool_files"], found["dropped"]) == (0, 0)
        with Store.of(one.settings, make=False) as store:
            kept = {name for (name,) in store.query("SELECT DISTINCT sha256 FROM rows WHERE kept = 1")}
            refused = store.query("SELECT count(*), count(sha256) FROM rows WHERE status != 0")
            prune(store, image_days=30, row_days=365, now_s=time.time())
            tapped = sum(value for (name, _), value in store.counters().items() if name == FILES)
        assert {path.name for path in (one.settings.journal / "images").glob("*/*")} == kept
        assert refused[0][0] > 10
        assert refused[0][1] == 0
        assert has_tapped(one, tapped)


def has_tapped(one: Journal, count: int) -> bool:
    """Whether Envoy says that it has tapped so many requests."""
    said = one.asked.metrics("/stats/prometheus?filter=rq_tapped")[1]
    return f'rq_tapped{{envoy_http_conn_manager_prefix="gateway"}} {count}\n' in said


def test_a_full_spool_without_a_collector_fails_no_request_and_is_counted(journal: Make) -> None:
    with journal(spool_mib=0.02) as one:
        with one.client() as client:
            results = list(client.classify_many(pictures(300)))
            assert [result.error for result in results] == [None] * 300
        counter = one.settings.folder / "dropped.json"

        def is_held() -> bool:  # files are removed before they are counted
            left = tap_files(one.settings.spool)
            is_small = sum(file.size for file in left) <= 0.02 * 2**20
            return is_small and has_tapped(one, read_dropped(counter) + len(left))

        until(is_held)
        until(lambda: "spool_full" in {name for name, _ in one.asked.said})
        dropped, left = read_dropped(counter), len(tap_files(one.settings.spool))
        assert dropped > 10
        done = one.empty()
        assert done["files"] == left
        assert one.run("status")["dropped"] == dropped
        shutil.rmtree(one.settings.spool)
        with one.client() as client:
            assert [result.error for result in client.classify_many([RED] * 20)] == [None] * 20


@pytest.mark.nightly
def test_a_full_tmpfs_as_spool_fails_no_request_and_half_files_are_no_rows(journal: Make, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "spool", "64k") as spool, journal(spool=str(spool)) as one:
        with one.client() as client:
            assert [result.error for result in client.classify_many(pictures(200))] == [None] * 200
        assert (os.statvfs(spool).f_bavail, len(tap_files(spool)) > 10) == (0, True)
        assert one.empty()["rows"] > 10
        found = one.run("status")
        assert found["spool_is_tmpfs"]
        assert found["parity"] == {"equal": found["rows"]}
        assert found["files"].get("unfinished", 0) > 0


def test_a_full_disk_fails_no_request_and_no_row_is_lost(journal: Make, tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "disk", "12m") as disk,
        journal(journal=str(disk / "journal")) as one,
        one.client() as client,
    ):
        one.collect()
        until(lambda: (disk / "journal" / "journal.sqlite").exists() and "takes in" in one.said())
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 8192))
        results = list(client.classify_many(pictures(60)))
        assert [result.error for result in results] == [None] * 60
        until(lambda: "alert: the journal cannot be written" in one.said())
        assert one.rows() < 60
        (disk / "filler").unlink()
        until(lambda: one.rows() == 60)


@pytest.mark.nightly
def test_another_bundle_behind_the_gateway_claims_no_parity(
    journal: Make, assemble_colours: Callable[..., Path], start: Callable[[Path], Any], tmp_path: Path
) -> None:
    (file,) = EXAMPLE.glob("post_*/1/decision.json")
    decision = Decision.read(file).plain()
    other = start(assemble_colours(tmp_path / "other", decision={**decision, "temperature": 2.0}))
    with journal() as one, one.client() as client:
        client.classify(RED)
        until(lambda: tap_files(one.settings.spool))
        (one.settings.folder / SERVERS).write_text(ArmPorts(grpc={"stable": other.ports.grpc}).to_json())
        one.empty()
        (row,) = last_rows(one.settings, last=9, classifier=None)
        assert row["parity"] == "other_bundle"
        assert row["bundle"] != row["replayed_bundle"]


def test_what_is_forgotten_goes_and_does_not_come_back(journal: Make) -> None:
    with journal() as one, one.client() as client:
        first, second = pictures(2)
        for image, name in ((first, "keep"), (second, "go"), (first, "go")):
            client.classify(image, request_id=name)
        time.sleep(0.3)
        one.empty()
        assert one.run("forget", "go.0") == {"rows": 2, "images": 1, "spooled": 0}
        client.classify(first, request_id="later")
        until(lambda: tap_files(one.settings.spool))
        time.sleep(0.2)
        assert one.run("forget", "later.0")["spooled"] == 1
        one.empty()
        assert [row["client_id"] for row in one.run("rows")["rows"]] == ["keep.0"]
        assert one.run("status")["images"] == 1


def test_no_secret_and_no_client_address_is_in_the_spool_or_the_journal(journal: Make) -> None:
    with journal() as one:
        claimed = {"x-forwarded-for": ADDRESS, "slipway-sampled": "0.123"}
        claimed |= {"forwarded": f"for={ADDRESS}", "X-Real-IP": ADDRESS, "true-client-ip": ADDRESS}
        claimed |= dict.fromkeys(("authorization", "proxy-authorization", "cookie"), f"Basic {SECRET}")
        assert one.asked.http("POST", INFER, RED, {**RAW, **claimed})[0] == 200
        with one.client() as client:
            client.classify(RED)
        until(lambda: len(tap_files(one.settings.spool)) == 2)
        time.sleep(0.2)
        spooled = b"".join(file.path.read_bytes() for file in tap_files(one.settings.spool))
        one.empty()
        kept = b"".join(path.read_bytes() for path in one.settings.journal.rglob("*") if path.is_file())
        for secret in (ADDRESS, SECRET, *KEYS.values()):
            assert secret.encode() not in spooled + kept
        assert b"127.0.0.1" not in spooled + kept
        assert {row["sampled_with"] for row in one.run("rows")["rows"]} == {1.0}
        for folder in (one.settings.spool, one.settings.journal):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert all(p.stat().st_mode & 0o077 == 0 for p in one.settings.journal.rglob("*"))


def test_users_stay_with_their_server_by_a_header_that_the_tap_is_not_given(
    own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route is chosen before the header is removed. The candidate does not run, and stable answers in its place."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    candidate = vars(free_beside(own_server.ports))
    with tapped(tmp_path / "gateway", ports=own_server.ports, repository=EXAMPLE, candidate=candidate) as one:
        routes.write_routes(one.settings, routes.Traffic(weight_percent=50, sticky_header="cookie"))

        def arm(user: int) -> str:
            status, _, headers = one.asked.http("POST", INFER, RED, {**RAW, "cookie": f"user={user}"})
            assert status == 200
            return headers["slipway-arm"]

        until(lambda: {arm(user) for user in range(8)} == {"stable", "candidate"})
        assert [arm(user) for user in range(24)] == [arm(user) for user in range(24)]


def test_the_sample_is_as_large_as_asked_and_weighs_back_to_all_requests(journal: Make) -> None:
    requests = 1000
    with journal(share=0.4, per_second=40) as one:
        with one.client() as client:
            images = [RED] * requests
            started = time.monotonic()
            errors = sum(result.error is not None for result in _singly(client, images))
            took_s = time.monotonic() - started
        time.sleep(0.3)
        assert errors == 0
        one.empty()
        with Store.of(one.settings, make=False) as store:
            chances = np.array([chance for (chance,) in store.query("SELECT sampled_with FROM rows")])
        assert chances.max() == pytest.approx(0.4)
        # The first ones are sampled by their share, until the rate is known; by the share alone it were 400.
        assert len(chances) <= 1.3 * 40 * took_s + 100
        spread = float(np.sqrt(np.sum((1 - chances) / chances**2)))
        assert abs(float(np.sum(1 / chances)) - requests) < 4 * spread


def _singly(client: Client, images: list[bytes]) -> Iterator[Any]:
    """One image in a request, several requests at once."""
    client._core._limits["colours"] = 1
    return client.classify_many(images)


def test_a_running_collector_tells_its_numbers_and_ends_at_sigterm(journal: Make) -> None:
    with journal() as one, one.client() as client:
        process = one.collect()
        client.classify(RED)
        until(lambda: one.rows() == 1)
        connection = http.client.HTTPConnection("127.0.0.1", one.settings.observe.metrics_port, timeout=5)
        until(lambda: b'parity_total{classifier="colours",result="equal"} 1.0' in _metrics(connection))
        connection.close()
        process.terminate()
        assert process.wait(10) == 0
        command = [sys.executable, "-m", "slipway", "journal", "run", str(one.settings_file), "--once", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(done.stdout) == {"files": 0, "rows": 0, "differ": 0}
        assert "took in 1 tap files: 1 rows, 0 of them differ" in one.said()


def _metrics(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/metrics")
    return connection.getresponse().read()
