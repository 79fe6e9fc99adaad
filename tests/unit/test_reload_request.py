"""What `slipway reload` says of a port that no supervisor has."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from slipway.contract import ServingError
from slipway.serving.key import VARIABLE
from slipway.serving.reload_request import request_reload


@contextmanager
def answering(code: int, body: bytes) -> Iterator[int]:
    """The port of a server that gives every POST this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"{}", b"\xff"])
@pytest.mark.parametrize("code", [200, 404])
def test_another_server_on_the_port_is_said(monkeypatch: pytest.MonkeyPatch, code: int, body: bytes) -> None:
    monkeypatch.setenv(VARIABLE, "a-key")
    with (
        answering(code, body) as port,
        pytest.raises(ServingError, match=rf"is not a supervisor's: .*, of status {code}, has no message; give"),
    ):
        request_reload(port, timeout_s=5)


def test_a_gateway_that_was_not_updated_is_an_error_only_for_whom_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "a-key")
    with answering(200, b'{"done": true, "message": "nothing; as before", "gateway_done": false}') as port:
        assert request_reload(port, timeout_s=5) == "nothing; as before"
        with pytest.raises(ServingError, match="nothing; as before"):
            request_reload(port, timeout_s=5, with_gateway=True)
