"""A candidate beside a stable server, under load: it is judged worse and rolled back, or promoted and taken back."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from slipway.operations.release import readings
from slipway.operations.release.promotion import former_repository
from slipway.operations.release.record import read_record
from slipway.serving import Ports
from tests.serving.conftest import Launched
from tests.support.gateways import Asked, grpc_key, needs_envoy, running_gateway
from tests.support.releases import ReleaseFolder, tempered
from tests.support.v2_requests import IMAGE, message

pytestmark = needs_envoy
BLOCK_S = 0.5
"""Length of a block here: shorter than in use, so that a verdict takes seconds."""


class Users:
    """Two threads that ask without a pause. An answer is its arm and its bundle id; a failure is its reason."""

    def __init__(self, asked: Asked) -> None:
        self.answers: list[tuple[float, str, str]] = []
        self._stub, self._over = asked.stub(), False
        self._pool = ThreadPoolExecutor(2)
        self._futures = [self._pool.submit(self._ask) for _ in range(2)]

    def _ask(self) -> None:
        while not self._over:
            try:
                request = message(IMAGE, outputs=("BUNDLE",))
                answer, call = self._stub.ModelInfer.with_call(request, metadata=grpc_key(), timeout=10)
                arm, bundle = dict(call.initial_metadata())["slipway-arm"], answer.raw_output_contents[0][4:].decode()
            except grpc.RpcError as error:
                arm, bundle = "failed", f"{error.code()}: {error.details()}"
            self.answers.append((time.monotonic(), arm, bundle))
            time.sleep(0.005)

    def since(self, start: float) -> Counter[tuple[str, str]]:
        return Counter((arm, bundle) for at, arm, bundle in list(self.answers) if at > start)

    def stop(self) -> None:
        self._over = True
        for future in self._futures:
            future.result()
        self._pool.shutdown()


@contextmanager
def released(
    launch: Callable[..., Launched], folder: Path, monkeypatch: pytest.MonkeyPatch, *, broken: float = 0.0
) -> Iterator[tuple[ReleaseFolder, Users]]:
    """Two servers, a gateway, an open release and users."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setattr(readings, "BLOCK_S", BLOCK_S)
    monkeypatch.setattr(readings, "SLACK_S", 0.1)
    ports = Ports.free(), Ports.free()
    release = ReleaseFolder(folder / "release", new=tempered(2.0), stable=ports[0], candidate=ports[1])
    release.open_release()
    if broken:
        release.break_candidate(broken)
    environment = {"XDG_STATE_HOME": str(folder / "state")}
    servers = [
        launch(repository, ports=own, environment=environment)
        for repository, own in zip((release.stable, release.candidate), ports, strict=True)
    ]
    for server in servers:
        server.wait_for('"event": "ready"')
    with running_gateway(release.gateway) as asked:
        users = Users(asked)
        try:
            yield release, users
        finally:
            users.stop()
    for server in servers:
        assert server.events("restarting") == []


def judged(release: ReleaseFolder, *, timeout_s: float = 30.0) -> int | None:
    """The exit code of `judge` once it has a verdict."""
    deadline = time.monotonic() + timeout_s
    while (code := release("judge")) == 2:
        assert time.monotonic() < deadline, "no verdict in time"
        time.sleep(BLOCK_S)
    return code


def last_line(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_candidate_with_errors_is_judged_worse_and_loses_its_weight_at_once(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with released(launch, tmp_path, monkeypatch, broken=0.4) as (release, users):
        assert release("judge") == 2, "nothing was measured"
        release("weight", "--json")
        assert last_line(capsys)["weight_percent"] == 50
        assert judged(release) == 1
        assert "rolled back: weight 0 % is in force" in capsys.readouterr().out
        rolled_back = time.monotonic()
        time.sleep(1)
        assert {arm for arm, _ in users.since(rolled_back + 0.1)} == {"stable"}
        failed = {bundle for arm, bundle in users.since(0) if arm == "failed"}
        assert all("injected" in reason for reason in failed), failed
        release("status", "--json")
        told = last_line(capsys)
        assert told["weight_percent"] == 0
        assert told["judgement"]["verdict"] == "worse"
        assert told["counts"]["stable"]["errors"] == 0
        assert told["counts"]["candidate"]["errors"] > 10
        assert [action["by"] for action in told["record"]["actions"]][-1] == "judge"


def test_a_good_candidate_is_promoted_and_taken_back_without_a_failed_request(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with released(launch, tmp_path, monkeypatch) as (release, users):
        for weight in (100, 0, 50):
            release("weight", str(weight), "--json")
            assert last_line(capsys)["seconds"] < 1
        assert judged(release) == 0
        assert "slipway release promote" in capsys.readouterr().out
        release("promote", "--approved-by", "A. Lee", "--json")
        promoted = time.monotonic()
        told = last_line(capsys)
        assert told["seconds"] < 10
        time.sleep(0.5)
        assert set(users.since(promoted + 0.2)) == {("stable", release.new.id)}
        record = read_record(release.stable)
        assert record is not None
        assert record.actions[-1].by == "A. Lee"
        assert record.actions[-1].evidence is not None
        assert former_repository(release.stable).is_dir()
        release("rollback", "--reason", "a drill", "--json")
        taken_back = time.monotonic()
        assert last_line(capsys)["weight_zero_s"] < 1
        time.sleep(0.5)
        assert set(users.since(taken_back + 0.2)) == {("stable", release.old.id)}
        users.stop()
        assert Counter(arm for _, arm, _ in users.answers)["failed"] == 0
