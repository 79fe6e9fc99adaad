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
from slipway.client.options import Address
from slipway.client.replies import refusal
from slipway.contract import SpecError
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


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_server_without_tls_is_no_missing_server(scheme: str) -> None:
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as listening:
        listening.daemon_threads = True
        Thread(target=listening.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{listening.server_address[1]}"
        with (
            Client(f"{scheme}://{address}", model="colours", options=Options(deadline_s=10)) as client,
            pytest.raises(ServerError, match="answers without TLS") as refused,
        ):
            client.classify(b"x")
        listening.shutdown()
    assert not isinstance(refused.value, GoneError)
    assert f"or {scheme[:-1]}://{address}" in str(refused.value)


@pytest.mark.parametrize("said", ["certificate has expired", "certificate is not yet valid"])
def test_who_trusts_an_old_certificate_is_told_that_it_is_old(said: str) -> None:
    """Both gRPC's library and Python's say this after `CERTIFICATE_VERIFY_FAILED`."""
    refused = refusal("UNAVAILABLE", f"CERTIFICATE_VERIFY_FAILED: {said}", address=Address.parse("grpcs://host:8443"))
    assert not isinstance(refused, GoneError)
    assert "its owner has to replace it" in str(refused)


@pytest.mark.parametrize("content", ["", "hello", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_without_a_certificate_is_an_error_at_once(tmp_path: Path, content: str) -> None:
    file = tmp_path / "certificate.pem"
    file.write_text(content)
    with pytest.raises(SpecError, match=r"no certificate can be read .*; use a PEM file that has -----BEGIN"):
        Options(certificate=file)
