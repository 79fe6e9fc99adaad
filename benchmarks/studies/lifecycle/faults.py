"""The committed example behind a gateway: hostile requests, and a journal whose collector, spool or disk fails."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.studies.lifecycle.result import Found, Hostile, Journalled
from benchmarks.studies.robustness.launcher import Launcher, launched
from benchmarks.studies.study import ROOT
from tests.support.gateways import Asked, grpc_key, running_gateway, write_gateway
from tests.support.hostile import BROKEN_GRPC, HOSTILE_GRPC, HOSTILE_HTTP, WRONG_GRPC, WRONG_HTTP, raw
from tests.support.journals import Journal, Traffic, pictures, tapped, tmpfs, until
from tests.support.v2_requests import IMAGE, message

EXAMPLE = ROOT / "model_repository/example"
DEADLINES_MS = range(1, 9)
"""Deadlines of one to four milliseconds can end tritonserver 2.51."""
WRITTEN_S = 0.5
"""Envoy writes a tap after its answer."""
SPOOL_MIB, SPOOLED = 0.02, 300
DISK, LEFT_BYTES, KEPT = "12m", 8192, 60


def try_faults(work: Path, found: Found, *, kills: int, seed: int) -> None:
    """Send hostile requests; then kill the collector, fill the spool, and fill the disk of a journal."""
    (work / "example").mkdir()
    with launched(EXAMPLE, work / "example") as server:
        path = write_gateway(work / "hostile", ports=server.ports, repository=str(EXAMPLE))
        with running_gateway(path) as asked:
            hostile = _send_hostile(asked, server)
        found.facts["hostile"] = hostile.plain()
        found.judge("hostile and not refused", [len(hostile.not_refused)], limit=0, unit="requests")
        found.judge("restarts by hostile requests", [hostile.server_restarts], limit=0, unit="restarts")

        def journal(name: str, **observe: Any) -> AbstractContextManager[Journal]:
            return tapped(work / name, ports=server.ports, repository=EXAMPLE, **observe)

        with journal("kills") as one:
            kept = {"collector killed": _kill_collector(one, kills=kills, seed=seed)}
        with journal("spool", spool_mib=SPOOL_MIB) as one:
            kept["spool full"] = _fill_spool(one)
        try:
            with tmpfs(work / "disk", DISK) as disk, journal("full", journal=str(disk / "journal")) as one:
                kept["disk full"] = _fill_disk(one, disk)
        except pytest.skip.Exception as error:  # only root mounts a tmpfs
            found.leave_out("disk full", str(error))
        found.facts["journal"] = {name: part.plain() for name, part in kept.items()}
    missing = [abs(part.answers - part.dropped - part.rows) for part in kept.values()]
    found.judge("rows missing or too many", missing, limit=0, unit="rows")
    found.judge("failed beside the journal", [part.failed for part in kept.values()], limit=0, unit="requests")


def _send_hostile(asked: Asked, server: Launcher) -> Hostile:
    """Send every hostile or wrong request once, and see whether the server is still the same process."""
    pid, codes, passed = server.server_pid(), Counter[str](), []
    over_grpc = dict(_over_grpc(asked))
    over_http = {name: case[:4] for name, case in HOSTILE_HTTP.items()} | WRONG_HTTP
    for name, request in over_http.items():
        code, _, _ = asked.http(*request)
        codes[str(code)] += 1
        if not 400 <= code < 500:
            passed.append(f"{name}: {code}")
    for name, status in over_grpc.items():
        codes[status.name] += 1
        if status == grpc.StatusCode.OK:
            passed.append(name)
    asked.stub().ModelInfer(message(IMAGE), metadata=grpc_key(), timeout=5)  # raises if the server does not answer
    restarts = len(server.events("restarting")) + (server.server_pid() != pid)
    return Hostile(
        http=len(over_http),
        grpc=len(over_grpc),
        codes=dict(codes),
        not_refused=tuple(passed),
        server_restarts=restarts,
    )


def _over_grpc(asked: Asked) -> Iterator[tuple[str, grpc.StatusCode]]:
    stub = asked.stub()
    calls = {name: call for name, (call, _) in HOSTILE_GRPC.items()}
    calls |= {name: partial(_infer, request=request) for name, request in WRONG_GRPC.items()}
    calls |= {
        f"a deadline of {ms} ms": partial(_infer, request=message(IMAGE), timeout_s=ms / 1000) for ms in DEADLINES_MS
    }
    for name, call in calls.items():
        try:
            call(stub)
        except grpc.RpcError as error:
            yield name, error.code()
        else:
            yield name, grpc.StatusCode.OK
    for name, body in BROKEN_GRPC.items():
        yield f"a message with {name}", raw(asked, body)


def _infer(stub: Any, *, request: Any, timeout_s: float = 5) -> Any:
    return stub.ModelInfer(request, metadata=grpc_key(), timeout=timeout_s)


def _journalled(one: Journal, *, answers: int, failed: int) -> Journalled:
    """Count the journal's rows of these answers, after it has taken in the whole spool."""
    one.empty()
    told = one.run("status")
    return Journalled(answers=answers, failed=failed, rows=told["rows"], dropped=told["dropped"], parity=told["parity"])


def _until_rows(one: Journal, rows: int) -> None:
    until(lambda: one.rows() >= rows)


def _kill_collector(one: Journal, *, kills: int, seed: int) -> Journalled:
    draw = random.Random(seed)
    with Traffic(one) as traffic:
        for _ in range(kills):
            process, before = one.collect(), one.rows()
            _until_rows(one, before + 6)
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
    time.sleep(WRITTEN_S)
    return _journalled(one, answers=traffic.answers, failed=traffic.errors)


def _fill_spool(one: Journal) -> Journalled:
    """Ask for one image after the other while no collector empties a spool of 20 kB."""
    with one.client() as client:
        answers = [client.classify(image).error for image in pictures(SPOOLED)]
    time.sleep(WRITTEN_S + 1)  # the bound is checked each second
    return _journalled(one, answers=len(answers), failed=len(answers) - answers.count(None))


def _fill_disk(one: Journal, disk: Path) -> Journalled:
    """Ask while the journal's disk is full, and let the collector go on when the disk has space again."""
    process = one.collect()
    until(lambda: (disk / "journal/journal.sqlite").exists() and "takes in" in one.said())
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - LEFT_BYTES))
    with one.client() as client:
        answers = [result.error for result in client.classify_many(pictures(KEPT))]
    until(lambda: "alert: the journal cannot be written" in one.said())
    (disk / "filler").unlink()
    _until_rows(one, KEPT)
    process.terminate()
    process.wait()
    return _journalled(one, answers=len(answers), failed=len(answers) - answers.count(None))
