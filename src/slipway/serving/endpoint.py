"""The supervisor's HTTP endpoint: /live, /ready, /ready/<classifier>, /ready?only=<names>, /metrics, and POST /reload
with the key."""

import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from slipway.serving.key import HEADER
from slipway.serving.ports import HOST
from slipway.serving.status import ServingStatus

_REQUEST_TIMEOUT_S = 5.0
_ROUTES = "GET /live, /ready, /ready/<classifier>, /ready?only=<classifier>,… and /metrics, and POST /reload"
Reload = Callable[[], tuple[bool, str]]
"""Whether the new repository is served now, and the change or the reason against it."""


class Renewed(NamedTuple):
    """The result for a gateway in front, which read its settings again at the last reload."""

    done: bool
    message: str


GatewayRenewed = Callable[[], Renewed | None]
"""Returns what the gateway in front did at the last reload; None if no gateway runs."""


@contextmanager
def endpoint(
    port: int,
    *,
    status: ServingStatus,
    reload: Reload,
    key: str,
    gateway_renewed: GatewayRenewed = lambda: None,
    address: str = HOST,
) -> Iterator[None]:
    """Answer on `address` for the duration of the block."""

    class Handler(_Handler):
        pass

    Handler.status, Handler.reload, Handler.key = status, staticmethod(reload), key
    Handler.gateway_renewed = staticmethod(gateway_renewed)
    with QuietServer((address, port), Handler).answering():
        yield


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing by itself: a traceback on a closed stderr would end the endpoint."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # the client is gone

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Answer in a thread for the duration of the block."""
        with self:
            threading.Thread(target=self.serve_forever, daemon=True).start()
            try:
                yield
            finally:
                self.shutdown()


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that logs nothing: questions come every second."""

    timeout = _REQUEST_TIMEOUT_S
    server_version, sys_version = "slipway", ""

    def send(self, code: int, content_type: str, body: bytes) -> None:
        """Send the whole answer."""
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Handler(QuietHandler):
    status: ServingStatus
    reload: Reload
    gateway_renewed: GatewayRenewed
    key: str

    def do_GET(self) -> None:
        problems = self.status.problems()
        asked = _asked(self.path)
        if self.path == "/live":
            self._answer(200, {"live": True})
        elif self.path == "/metrics":
            self.send(200, CONTENT_TYPE_LATEST, generate_latest(self.status.registry))
        elif self.path == "/ready":
            ready = self.status.is_ready()
            self._answer(200 if ready else 503, {**_ready(problems, ready), "probed_within_s": self.status.turn_s})
        elif asked and asked <= problems.keys():
            named = {name: problems[name] for name in asked}
            ready = not any(named.values())
            self._answer(200 if ready else 503, _ready(named, ready))
        else:
            self._answer(404, {"error": f"unknown path; use {_ROUTES}", "classifiers": sorted(problems)})

    def do_POST(self) -> None:
        self.close_connection = True  # the body is not read
        if self.path != "/reload":
            return self._answer(404, {"error": f"unknown path; use {_ROUTES}"})
        if not hmac.compare_digest(self.headers.get(HEADER, "").encode(), self.key.encode()):
            return self._answer(403, {"error": f"the header {HEADER} does not hold the key"})
        done, said = self.reload()
        renewed = self.gateway_renewed() if done else None
        if renewed is not None:
            message = f"{said}; {renewed.message}"
            return self._answer(200, {"done": done, "message": message, "gateway_done": renewed.done})
        return self._answer(200 if done else 409, {"done": done, "message": said})

    def _answer(self, code: int, content: dict[str, object]) -> None:
        self.send(code, "application/json", json.dumps(content).encode() + b"\n")


def _asked(path: str) -> set[str]:
    """The classifiers that are named after /ready: one as a part of the path, or some as `?only=a,b`."""
    one, several = "/ready/", "/ready?only="
    if path.startswith(one):
        return {path.removeprefix(one)}
    return set(path.removeprefix(several).split(",")) if path.startswith(several) else set()


def _ready(problems: dict[str, str], ready: bool) -> dict[str, object]:
    broken = {name: problem for name, problem in problems.items() if problem}
    return {"ready": ready, "answering": sorted(problems.keys() - broken), "broken": broken}
