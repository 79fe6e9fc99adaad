"""A registry or a Label Studio that answers slowly, whatever of it is slow, is given up when its whole time is over."""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from pathlib import Path

import pytest

from slipway.contract import OciImageError, ServingError
from slipway.oci import registry as registries
from slipway.oci.documents import Descriptor
from slipway.oci.reference import RegistryReference
from slipway.oci.registry import Registry
from slipway.operations.gateway.new_secrets import self_signed
from slipway.operations.labels.label_studio_rest import Rest
from slipway.operations.labels.settings import LabelStudio
from tests.support.slow_sockets import Handle, a_byte_at_a_time, listening, says_nothing

TIMEOUT_S, SOON_S = 0.1, 60.0
"""No byte of `a_byte_at_a_time` is late, and the whole answer takes 200 s."""
SLOW = {
    "silent": says_nothing,
    "status a byte at a time": a_byte_at_a_time(b"HTTP/1.1 200 "),
    "header a byte at a time": a_byte_at_a_time(b"HTTP/1.1 200 OK\r\nServer: "),
    "body a byte at a time": a_byte_at_a_time(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
}
BLOB, LARGE = Descriptor.of(b"x" * 10_000, "a/b"), Descriptor.of(bytes(1 << 26), "a/b")


def redirects(connection: socket.socket) -> None:
    """To itself, as often as it is asked."""
    asked = connection.recv(1 << 16)
    time.sleep(TIMEOUT_S / 3)
    connection.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /v2/%d\r\n\r\n" % len(asked))


def gives_a_token_slowly(connection: socket.socket) -> None:
    asked = connection.recv(1 << 16)
    if b"GET /token" in asked:
        SLOW["body a byte at a time"](connection)
    scheme = b"https" if isinstance(connection, ssl.SSLSocket) else b"http"
    (host,) = re.findall(rb"Host: (\S+)", asked)
    challenge = b'WWW-Authenticate: Bearer realm="%s://%s/token"\r\n' % (scheme, host)
    connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n" + challenge + b"\r\n")


def takes_a_blob_slowly(connection: socket.socket) -> None:
    if connection.recv(1 << 12).startswith(b"POST"):
        connection.sendall(b"HTTP/1.1 202 Go on\r\nContent-Length: 0\r\nLocation: /up\r\n\r\n")
        return
    while connection.recv(1 << 12):
        time.sleep(0.02)


Secured = Callable[[Handle], AbstractContextManager[Registry]]


@pytest.fixture(params=["http", "https"])
def registry_of(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secured:
    """Makes a registry of the given answers, with little time."""
    monkeypatch.setattr(registries, "TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(registries, "LEAST_BYTES_PER_S", 1 << 30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if request.param == "https":
        certificate, key = self_signed(tmp_path / "tls", hosts=["127.0.0.1"])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context.load_cert_chain(certificate, key)

    @contextmanager
    def made(handle: Handle) -> Iterator[Registry]:
        def over_tls(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                handle(wrapped)

        with listening(over_tls if request.param == "https" else handle) as port:
            registry = Registry(RegistryReference.parse(f"127.0.0.1:{port}/a:v1"))
            registry._root = f"{request.param}://127.0.0.1:{port}/v2/"
            yield registry

    return made


@contextmanager
def soon() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON_S


EXCHANGES: dict[str, tuple[Handle, Callable[[Registry], object]]] = {
    **{f"manifest, {name}": (handle, lambda one: one.manifest("v1")) for name, handle in SLOW.items()},
    "blob, body a byte at a time": (SLOW["body a byte at a time"], lambda one: list(one.blob(BLOB))),
    "redirects": (redirects, lambda one: one.manifest("v1")),
    "token": (gives_a_token_slowly, lambda one: one.manifest("v1")),
    "upload": (takes_a_blob_slowly, lambda one: one.put_blob(LARGE, lambda: repeat(bytes(1 << 20), 64))),
}


@pytest.mark.parametrize(("handle", "ask"), EXCHANGES.values(), ids=EXCHANGES)
def test_an_exchange_with_a_registry_ends(
    registry_of: Secured, handle: Handle, ask: Callable[[Registry], object]
) -> None:
    with soon(), registry_of(handle) as registry, pytest.raises(OciImageError, match="timed out"):
        ask(registry)


@pytest.mark.parametrize("handle", SLOW.values(), ids=SLOW)
def test_a_question_to_label_studio_ends(handle: Handle) -> None:
    with soon(), listening(handle) as port, pytest.raises(ServingError, match=r"does not answer within 0\.1 s"):
        Rest(LabelStudio(url=f"http://127.0.0.1:{port}", token_file="", timeout_s=TIMEOUT_S), "a-token")
