"""A proxy of the environment is not between a machine and itself, and where one is in the way the error names it."""

import socket
from collections.abc import Iterator

import pytest

from slipway.client import GoneError
from slipway.system.channel import channel_options, is_loopback
from tests.support.client_sides import Asker
from tests.support.slow_sockets import listening
from tests.support.stub_process import stub_process

VARIABLES = [name for low in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy") for name in (low, low.upper())]


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    with stub_process() as server:
        yield server.url


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that refuses, and what it was asked. No variable is set yet."""
    for name in [*VARIABLES, "no_proxy", "NO_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    asked: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with listening(refuse) as port:
        yield f"http://127.0.0.1:{port}", asked


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_this_machine(
    variable: str, host: str, proxy: tuple, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = proxy
    monkeypatch.setenv(variable, address)
    port = stub.rpartition(":")[2]
    assert Asker("sync", f"grpc://{host}:{port}").classify(b"image", model="stub").label == "seven"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses for sure
        asker = Asker("sync", f"http://{host}:{taken.getsockname()[1]}")
        with pytest.raises(GoneError):
            asker.classify(b"image", model="stub")
    assert asked == []


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_that_refuses_another_host_is_named_by_its_variable(
    variable: str, proxy: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = proxy
    monkeypatch.setenv(variable, address)
    asker = Asker("sync", "grpc://192.0.2.7:8001")
    with pytest.raises(GoneError, match=f"response code 403.*; {variable} is set, .* add the host to no_proxy"):
        asker.classify(b"image", model="stub")
    assert asked[0].startswith(b"CONNECT 192.0.2.7:8001")
    monkeypatch.setenv("no_proxy", "192.0.2.8")  # the remedy, for another host: gRPC goes on with the first for a while
    asker = Asker("sync", "grpc://192.0.2.8:8001")
    with pytest.raises(Exception):  # noqa: B017, PT011 - nobody is at that address, or no route to it
        asker.classify(b"image", model="stub", deadline_s=0.1)
    assert not [request for request in asked if b"192.0.2.8" in request]


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("LocalHost.:1", True),
        ("10.0.0.1:1", False),
        ("[2001:db8::1]:1", False),
        ("127.0.0.1.example.com:1", False),
        ("localhost.example.com:1", False),
    ],
)
def test_this_machine_is_known_by_its_words(address: str, here: bool) -> None:
    assert is_loopback(address) is here
    assert ("grpc.enable_http_proxy", int(not here)) in channel_options(address)


def test_an_answer_that_is_not_tritons_over_http_is_called_a_gateways() -> None:
    def gateway(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 13\r\n\r\n<html></html>")

    with listening(gateway) as port, pytest.raises(Exception, match=r"a proxy or a gateway answers \(502\)"):
        Asker("sync", f"http://127.0.0.1:{port}").classify(b"image", model="stub")
