"""Connections that do nothing take files, and a server without one more says so: nobody is thrown out for it."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from tests.support.asking import ask, get, wait_until
from tests.support.v2_requests import RED

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
FILES = 256
Launch = Callable[..., Any]


def start(launch: Launch, *, soft: int, hard: int) -> Any:
    """A launcher with other limits; it is still importing when it gets them."""
    launched = launch(EXAMPLE)
    resource.prlimit(launched.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    return launched


@contextmanager
def idle_connections(port: int, number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        yield


def test_a_server_may_open_as_many_files_as_the_hard_limit_allows(launch: Launch) -> None:
    launched = start(launch, soft=128, hard=1500)
    launched.wait_for("ready after")
    assert resource.prlimit(launched.server().pid, resource.RLIMIT_NOFILE) == (1500, 1500)
    assert resource.prlimit(launched.process.pid, resource.RLIMIT_NOFILE) == (1500, 1500)
    with idle_connections(launched.ports.http, 1100):
        time.sleep(2)
        assert get(launched, "/ready")[0] == 200
    assert launched.events("not_ready") == []


def test_too_few_files_to_serve_anybody_are_refused_with_what_to_raise(launch: Launch) -> None:
    launched = start(launch, soft=64, hard=64)
    assert launched.process.wait(timeout=180) == 1
    said = launched.said().splitlines()[-1]
    assert "64 files open here, and this server needs 204" in said
    assert "LimitNOFILE" in said


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("hold_s", [0, pytest.param(40, marks=pytest.mark.nightly)])
def test_a_full_server_is_not_ready_says_why_and_goes_on_answering_those_who_are_connected(
    launch: Launch, protocol: str, hold_s: float
) -> None:
    launched = start(launch, soft=FILES, hard=FILES)
    launched.wait_for("ready after")
    with InferenceServerClient(f"127.0.0.1:{launched.ports.grpc}") as connected:
        assert ask(connected, "colours", RED).label == "red"
        with idle_connections(getattr(launched.ports, protocol), FILES):
            wait_until(lambda: get(launched, "/ready")[0] == 503)
            why = get(launched, "/ready")[1]["broken"]["colours"]
            assert f"of {FILES} files open" in why
            assert why in launched.events("not_ready")[0]["message"]
            time.sleep(hold_s)
            assert ask(connected, "colours", RED).label == "red"
        wait_until(lambda: get(launched, "/ready")[0] == 200)
    assert launched.events("ready_again")
    assert launched.events("restarting") == launched.events("step_lost") == []
