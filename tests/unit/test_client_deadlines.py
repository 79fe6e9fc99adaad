"""A deadline of `slipway.client` and of the copyable scripts holds, however a server keeps its client waiting."""

import asyncio
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from slipway.client import AsyncClient, Client, ClientError, DeadlineError, Options
from tests.support.client_sides import Asker
from tests.support.slow_sockets import SLOW_HTTP, SLOW_HTTP_2, black_hole, listening, says_nothing
from tests.support.stub_process import stub_process

CLIENTS = Path(__file__).parents[2] / "clients"
MARGIN_S = 2.0
"""For a busy machine; whoever waits for the server waits for ever."""
SLOW = {
    "never accepts": listening,
    "black hole": black_hole,
    "says nothing": lambda: listening(says_nothing),
    "a byte at a time, HTTP": lambda: listening(SLOW_HTTP),
    "a byte at a time, HTTP/2": lambda: listening(SLOW_HTTP_2),
}


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < limit_s


@pytest.fixture(params=["sync", "async"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["grpc", "http"])
def script_client(request: pytest.FixtureRequest) -> Iterator[Callable]:
    """`script_client(host_port, timeout_s)`: what classify_grpc.py or classify_http.py asks with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CLIENTS)
        module = importlib.import_module(f"classify_{request.param}")
        yield {"grpc": "GrpcClient", "http": "HttpClient"}[request.param], module


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("slow", SLOW)
def test_a_slow_server_is_given_up_at_the_deadline_and_so_is_closing(slow: str, protocol: str, side: str) -> None:
    with SLOW[slow]() as port, within(0.2 + MARGIN_S), pytest.raises(ClientError):
        Asker(side, f"{protocol}://127.0.0.1:{port}").classify(b"image", model="stub", deadline_s=0.2)


@pytest.mark.parametrize("slow", ["never accepts", "black hole"])
def test_a_server_that_is_slow_to_accept_is_waited_for_and_not_gone(slow: str, side: str) -> None:
    with SLOW[slow]() as port, pytest.raises(DeadlineError):
        Asker(side, f"grpc://127.0.0.1:{port}").classify(b"image", model="stub", deadline_s=0.4)


@pytest.fixture
def stopped() -> Iterator[tuple[str, Callable[[], None]]]:
    """A server's address, and what stops it: it answers nothing and reads nothing any more."""
    with stub_process() as stub:
        yield stub.url, lambda: os.kill(stub.pid, signal.SIGSTOP)
        os.kill(stub.pid, signal.SIGCONT)


def test_a_body_that_a_stopped_server_does_not_read_ends_at_the_deadline(stopped: tuple) -> None:
    url, stop = stopped
    with Client(f"grpc://{url}", model="stub", options=Options(deadline_s=0.3)) as client:
        assert client.classify(b"image").label == "seven"
        stop()
        with within(0.3 + MARGIN_S), pytest.raises(DeadlineError):
            client.classify(bytes(16 * 2**20))
        with within(3 * 0.3 + MARGIN_S):
            results = list(client.classify_many([bytes(2**20)] * 20))
        assert {type(result.error) for result in results} == {DeadlineError}
        going = client.classify_many([bytes(2**20)] * 20)
        client_closes = threading.Timer(0.1, client.close)
        client_closes.start()
        with within(0.3 + MARGIN_S), pytest.raises(ClientError, match="closed"):
            list(going)
        client_closes.join()


def test_waiting_for_its_turn_counts_towards_the_deadline_of_an_image(stopped: tuple) -> None:
    url, stop = stopped

    async def ask() -> list:
        options = Options(deadline_s=0.3, concurrency=2)
        async with AsyncClient(f"grpc://{url}", model="stub", options=options) as client:
            await client.classify(b"image")
            stop()
            calls = [client.classify(b"image") for _ in range(20)]
            return await asyncio.gather(*calls, return_exceptions=True)

    with within(0.3 + MARGIN_S):
        ended = asyncio.run(ask())
    assert {type(one) for one in ended} == {DeadlineError}
    assert any("this client has 2 requests under way" in str(one) for one in ended)


def test_a_name_server_that_is_silent_holds_neither_the_call_nor_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*_: object, **__: object) -> list:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with within(0.2 + MARGIN_S), pytest.raises(DeadlineError):
        Asker("sync", "http://triton.example:8000").classify(b"image", model="stub", deadline_s=0.2)
    over.set()


def test_the_scripts_deadline_holds_for_an_answer_that_comes_a_byte_at_a_time(script_client: tuple) -> None:
    name, module = script_client
    with listening(SLOW_HTTP if name == "HttpClient" else SLOW_HTTP_2) as port:
        client = getattr(module, name)(f"127.0.0.1:{port}", 0.2)
        with within(0.2 + MARGIN_S), pytest.raises(module.ServerError):
            client.infer("stub", np.array([[b"image"]], np.object_), ("LABEL",))


def test_the_grpc_scripts_deadline_holds_for_a_body_that_nobody_reads(script_client: tuple, stopped: tuple) -> None:
    name, module = script_client
    if name == "HttpClient":
        pytest.skip("the stub speaks gRPC")
    url, stop = stopped
    client = module.GrpcClient(url, 0.3)
    assert client.infer("stub", np.array([[b"image"]], np.object_), ("LABEL",))["LABEL"].tolist() == [[b"seven"]]
    stop()
    with within(0.3 + MARGIN_S), pytest.raises(module.ServerError, match="Deadline"):
        client.infer("stub", np.array([[bytes(16 * 2**20)]], np.object_), ("LABEL",))
