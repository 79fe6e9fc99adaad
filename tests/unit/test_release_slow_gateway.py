"""A release whose gateway gives its metrics a byte at a time: no action waits for the end, and none keeps the lock."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cli import release as verb
from slipway.contract import ServingError
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.process import Gateway
from slipway.operations.gateway.routes import Traffic, read_traffic, write_routes
from slipway.operations.gateway.settings import read_settings
from slipway.operations.release import metrics, trial
from slipway.operations.release.judge import ReleaseVerdict
from slipway.operations.release.lock import only_operator
from slipway.operations.release.trial import Judged, Trial
from slipway.serving.key import VARIABLE
from slipway.serving.probe import over_http
from slipway.serving.reload_request import request_reload
from slipway.system.timed_http import TimedConnection
from tests.support.releases import ReleaseFolder, tempered
from tests.support.slow_sockets import Handle, a_byte_at_a_time, answers, listening, says_nothing
from tests.support.watch_rows import watch_settings

TIMEOUT_S, SOON_S = 0.3, 60.0
"""An answer of `a_byte_at_a_time` takes 200 s."""
SLOW_BODY = a_byte_at_a_time(b"HTTP/1.1 200 OK\r\n\r\n")
SLOW = {
    "silent": says_nothing,
    "status a byte at a time": a_byte_at_a_time(b"HTTP/1.1 200 "),
    "header a byte at a time": a_byte_at_a_time(b"HTTP/1.1 200 OK\r\nServer: "),
    "body a byte at a time": SLOW_BODY,
}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReleaseFolder]:
    """An open release with 5 % of the requests and a slow gateway; the candidate's server counts as ready."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trial, "answering", lambda *_: {})
    monkeypatch.setattr(verb, "POLL_S", 0.0)
    monkeypatch.setattr(metrics, "TIMEOUT_S", TIMEOUT_S)
    with listening(SLOW_BODY) as port:
        made = ReleaseFolder(tmp_path, new=tempered(2.0), metrics_port=port)
        made.open_release()
        write_routes(read_settings(made.gateway), Traffic(weight_percent=5))
        yield made


@contextmanager
def soon() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("words", ["judge", "weight 10", "weight 0", "mirror 10", "rollback"])
def test_an_action_ends_and_gives_the_lock_back(release: ReleaseFolder, words: str) -> None:
    with soon(), pytest.raises(ServingError, match="timed out"):
        release(*words.split())
    settings = read_settings(release.gateway)
    with only_operator(settings.folder, "promote"):
        assert read_traffic(settings) == Traffic(weight_percent=0 if words == "rollback" else 5)


def test_a_watch_goes_on_after_slow_looks_the_first_one_among_them_and_rolls_back(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Trial.open(release.gateway).judged()
    worse = found.judgement.model_copy(update={"verdict": ReleaseVerdict.WORSE})
    slow = Trial.look
    looks: list[Callable[[Trial], Judged]] = [slow, lambda _: found, slow, lambda _: replace(found, judgement=worse)]

    def look(self: Trial) -> Judged:
        return looks.pop(0)(self)

    monkeypatch.setattr(Trial, "look", look)
    with soon(), pytest.raises(ServingError, match="weight 0 is written, and in force once the gateway answers again"):
        release("judge", "--watch")
    assert capsys.readouterr().out.count("does not answer: timed out") == 2
    assert read_traffic(read_settings(release.gateway)) == Traffic()


def test_the_care_of_a_slow_envoy_takes_it_for_silent(release: ReleaseFolder) -> None:
    gateway = Gateway(GatewayPlan.open(release.gateway), event=lambda *_, **__: None)
    with soon():
        assert not gateway._listening()


ASKED: dict[str, Callable[[int], object]] = {
    "gateway": lambda port: metrics.fetch(watch_settings(Path()).model_copy(update={"metrics_port": port}), ""),
    "supervisor": lambda port: request_reload(port, timeout_s=TIMEOUT_S),
    "server": lambda port: over_http(f"127.0.0.1:{port}", "digits", timeout_s=TIMEOUT_S),
}


@pytest.mark.parametrize("handle", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_question_ends_whatever_comes_slowly(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[int], object], handle: Handle
) -> None:
    monkeypatch.setenv(VARIABLE, "a-key")
    monkeypatch.setattr(metrics, "TIMEOUT_S", TIMEOUT_S)
    with soon(), listening(handle) as port, pytest.raises(ServingError, match="timed out"):
        ask(port)


def test_an_answer_in_time_is_read_as_a_whole() -> None:
    body = b"x" * 1_000_000
    with listening(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + body)) as port:
        connection = TimedConnection("127.0.0.1", port, timeout=SOON_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == body
        connection.close()
