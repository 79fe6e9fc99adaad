"""A candidate beside a stable server, under load: it is judged worse and rolled back, or promoted and taken back."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import ServingError, SpecError
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal.store import Store, sha256_of
from slipway.operations.release import comparing, promotion, readings
from slipway.operations.release.compatibility import answering
from slipway.operations.release.promotion import former_repository
from slipway.operations.release.record import read_record
from slipway.serving import Ports
from tests.serving.conftest import Launched
from tests.support.gateway_users import Users
from tests.support.gateways import needs_envoy, running_gateway
from tests.support.journal_rows import add_rows, made_row
from tests.support.journals import pictures
from tests.support.releases import ReleaseFolder, tempered

pytestmark = needs_envoy
BLOCK_S = 0.5
"""Length of a block here: shorter than in use, so that a verdict takes seconds."""


@contextmanager
def released(
    launch: Callable[..., Launched], folder: Path, monkeypatch: pytest.MonkeyPatch, *, broken: float = 0.0
) -> Iterator[tuple[ReleaseFolder, Users, Launched]]:
    """An open release, its users, and the candidate's server."""
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
            yield release, users, servers[1]
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
    with released(launch, tmp_path, monkeypatch, broken=0.8) as (release, users, _):  # too many for a burst
        assert release("judge") == 2, "nothing was measured"
        release("weight", "--json")
        assert last_line(capsys)["weight_percent"] == 50
        assert judged(release) == 1
        assert "rolled back: weight 0 % is in force" in capsys.readouterr().out
        rolled_back = time.monotonic()
        time.sleep(1)
        assert {arm for arm, _ in users.since(rolled_back + 0.1)} == {"stable"}
        assert {reason for reason in users.failed() if "injected" not in reason} == set()
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
    with released(launch, tmp_path, monkeypatch) as (release, users, _):
        for weight in (100, 0):
            release("weight", str(weight), "--json")
            assert last_line(capsys)["seconds"] < 5  # the study lifecycle holds it to its bar, as below
        shares = {"weight_percent": 50, "mirror_percent": 0, "sticky_header": "user"}
        release("weight", "50", "--sticky-header", "user", "--json")
        assert shares.items() <= last_line(capsys).items()
        release("mirror", "100", "--json")
        assert (shares | {"mirror_percent": 100}).items() <= last_line(capsys).items()
        release("rollback", "--json")
        told = last_line(capsys)
        assert told["weight_zero_s"] < 5
        assert told["reloaded"] is None
        release("weight", "50", "--json")
        assert judged(release) == 0
        assert "slipway release promote" in capsys.readouterr().out
        with monkeypatch.context() as busy:
            problems = [{"colours": "does not answer"}, {}]  # of the candidate, and of the former repository
            busy.setattr(promotion, "answering", lambda *_: problems.pop(0))
            with pytest.raises(ServingError, match=r"not promoted, and the former repository is back in .* and served"):
                release("promote", "--approved-by", "A. Lee")
        assert answering(read_settings(release.gateway).stable, {"colours": release.old.id}) == {}
        release("promote", "--approved-by", "A. Lee", "--json")
        promoted = time.monotonic()
        told = last_line(capsys)
        assert told["seconds"] < 60
        time.sleep(0.5)
        assert users.since(promoted + 0.2) == {("stable", release.new.id)}
        record = read_record(release.stable, gateway=release.gateway)
        assert record is not None
        assert record.actions[-1].by == "A. Lee"
        assert record.actions[-1].evidence is not None
        assert former_repository(release.stable).is_dir()
        release("rollback", "--reason", "a drill", "--json")
        taken_back = time.monotonic()
        told = last_line(capsys)
        assert told["weight_zero_s"] < 5
        assert told["seconds"] < 60, "a reload, as the promotion"
        time.sleep(0.5)
        assert users.since(taken_back + 0.2) == {("stable", release.old.id)}
        users.stop()
        assert users.failed() == []


def test_the_candidate_s_server_is_asked_for_the_images_of_the_journal(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(comparing, "WAIT_S", 0.5)
    ports, images = Ports.free(), pictures(20)
    release = ReleaseFolder(tmp_path / "release", new=tempered(100.0, unknown=0.5), candidate=ports, observe={})
    release.open_release()
    with Store.of(read_settings(release.gateway), make=True) as store:
        facts = {"classifier": "colours", "model": "colours", "bundle": release.old.id, "label": "red"}
        add_rows(store, [made_row(str(n), sha256=sha256_of(i), **facts) for n, i in enumerate(images)], images=images)
    server = launch(release.candidate, ports=ports, environment={"XDG_STATE_HOME": str(tmp_path / "state")})
    server.wait_for('"event": "ready"')
    release("compare", "--images", "15", "--training-unknown", "--json")
    assert last_line(capsys)["classifiers"]["colours"]["new"] == 15
    server.process.send_signal(signal.SIGKILL)  # the kernel ends its server with it
    with pytest.raises(SpecError, match=r"the candidate at port \d+ may not get requests: colours does not answer"):
        release("compare", "--training-unknown")
    with Store.of(read_settings(release.gateway), make=False) as store:
        assert store.query("SELECT label, count(*) FROM compared GROUP BY label") == [("unknown", 15)]
        assert store.query("SELECT reason, count(*) FROM asked GROUP BY reason") == [("differs", 15)]


@pytest.mark.nightly
def test_a_candidate_that_dies_is_judged_worse_although_stable_answers_for_it(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with released(launch, tmp_path, monkeypatch) as (release, users, candidate):
        release("weight", "50")
        for _ in range(3):
            assert release("judge") == 2
            time.sleep(BLOCK_S)
        killed = time.monotonic()
        candidate.process.send_signal(signal.SIGKILL)  # the kernel ends its server with it
        assert judged(release) == 1
        release("status", "--json")
        told = last_line(capsys)
        assert told["weight_percent"] == 0
        assert told["counts"]["candidate"]["elsewhere"] > 10
        users.stop()
        after = [one for one in users.answers if one.at > killed]
        assert len(users.failed(since=killed)) <= 0.02 * len(after)
