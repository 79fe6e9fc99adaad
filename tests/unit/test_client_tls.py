"""A server whose certificate the client does not trust is named as such, over both protocols."""

import shutil
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from slipway.client import Client, GoneError, Options, ServerError
from slipway.operations.gateway.new_secrets import self_signed

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Port and certificate, for localhost alone, of a server that ends after the handshake."""
    certificate, key = self_signed(tmp_path / "tls", hosts=["localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])

    class Handshake(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as connection:
                connection.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handshake) as listening:
        listening.daemon_threads = True
        Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1], certificate
        listening.shutdown()


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(("host", "is_given"), [("localhost", False), ("127.0.0.1", True)])
def test_another_certificate_is_no_missing_server(
    server: tuple[int, Path], scheme: str, host: str, is_given: bool
) -> None:
    port, certificate = server
    options = Options(deadline_s=10, certificate=certificate if is_given else None)
    address = f"{scheme}://{host}:{port}"
    with (
        Client(address, model="colours", options=options) as client,
        pytest.raises(ServerError, match=f"the certificate of {address} is not trusted") as refused,
    ):
        client.classify(b"x")
    assert not isinstance(refused.value, GoneError), "waiting for a restart changes nothing"
    assert "give the PEM file of its authority" in str(refused.value)
