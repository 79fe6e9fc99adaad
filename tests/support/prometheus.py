"""The real Prometheus and Alertmanager, on free ports of 127.0.0.1, and a webhook that keeps what it is sent."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slipway.serving import Ports
from tests.support.debian import tool

PROMETHEUS, PROMTOOL, AMTOOL = tool("prometheus"), tool("promtool"), tool("amtool")
ALERTMANAGER = tool("prometheus-alertmanager", "alertmanager")
needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL and AMTOOL and ALERTMANAGER),
    reason="Prometheus and Alertmanager are not installed: make prometheus",
)
# Debian's Alertmanager has this path built in, and other builds have the file.
_TEMPLATE = Path("/usr/share/prometheus/alertmanager/default.tmpl")
needs_alertmanager = pytest.mark.skipif(
    "prometheus-alertmanager" in (ALERTMANAGER or "") and not _TEMPLATE.is_file(),
    reason=f"Debian's Alertmanager finds no {_TEMPLATE}: make prometheus as root, once",
)


def checked(*words: object) -> str:
    """What a command says that must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Webhook:
    """An endpoint that keeps each alert that it is sent, with the time."""

    port: int
    alerts: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts"

    def first(self, alertname: str, *, after: float, seconds: float = 30, status: str = "firing") -> float:
        """Seconds from the Unix time `after` until the first alert of this name."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for at, alert in list(self.alerts):
                if at > after and alert["labels"]["alertname"] == alertname and alert["status"] == status:
                    return at - after
            time.sleep(0.05)
        raise AssertionError(f"no {alertname} within {seconds} s: {self.alerts}")


@contextmanager
def served(answer: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[int]:
    """Answers `answer(method, path, body)`; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@contextmanager
def webhook() -> Iterator[Webhook]:
    kept: list[tuple[float, dict[str, Any]]] = []

    def take(_method: str, _path: str, body: bytes) -> tuple[int, bytes]:
        kept.extend((time.time(), alert) for alert in json.loads(body)["alerts"])
        return 200, b""

    with served(take) as port:
        yield Webhook(port, kept)


@dataclass(frozen=True)
class Prometheus:
    port: int
    pid: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: dict[str, Any] = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["data"]["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("targets")["data"]["activeTargets"]
        return found

    def _get(self, what: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{what}", timeout=10) as response:
                read: dict[str, Any] = json.load(response)
                return read
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{what}: {error.read().decode()}") from None


def free_port() -> int:
    return Ports.free().http


@contextmanager
def running_prometheus(configuration: Path, data: Path) -> Iterator[Prometheus]:
    port = free_port()
    flags = (f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}")
    with _running(
        [str(PROMETHEUS), f"--config.file={configuration}", *flags], data, f"http://127.0.0.1:{port}/-/ready"
    ) as pid:
        yield Prometheus(port, pid)


@contextmanager
def running_alertmanager(configuration: Path, data: Path, *, port: int) -> Iterator[None]:
    flags = (f"--storage.path={data}", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=")
    command = [str(ALERTMANAGER), f"--config.file={configuration}", *flags]
    with _running(command, data, f"http://127.0.0.1:{port}/-/ready"):
        yield


@contextmanager
def _running(command: list[str], data: Path, ready: str) -> Iterator[int]:
    """The process of `command`, which answers at the URL `ready`; yields its number."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "said.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not _answers(ready):
            assert process.poll() is None, (data / "said.log").read_text()
            assert time.monotonic() < deadline, f"{ready} does not answer"
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
