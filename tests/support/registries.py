"""Registries for images: Debian's docker-registry, where it is installed, and a small one with faults to order."""

import base64
import contextlib
import hashlib
import json
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway.serving import Ports
from tests.support.debian import tool

BINARY = tool("docker-registry", "registry")
NO_BINARY = "docker-registry is not installed: make prometheus"


@contextlib.contextmanager
def docker_registry(folder: Path, *, htpasswd: str | None = None) -> Iterator[str]:
    """Host and port of a real registry with storage in `folder`; with `htpasswd`, a line of that file, it asks who."""
    if BINARY is None:
        pytest.skip(NO_BINARY)
    port = Ports.free().http
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if htpasswd is not None:
        (folder / "htpasswd").write_text(htpasswd)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen(
        [BINARY, "serve", folder / "registry.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
                break
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@dataclass
class Stored:
    """What the small registry holds, what was asked of it, and the faults that were ordered."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """By tag and by digest: the bytes and the media type."""
    asked: list[str] = field(default_factory=list)
    """`METHOD path` of each request."""
    fault: Callable[[str], int | None] = lambda _: None
    """Called with `METHOD path`; a number is the status to answer with, and 0 cuts the connection."""
    token: str | None = None
    """The token without which nothing is given, for `user` with `password`."""
    lists_artefacts: bool = False
    elsewhere: str = ""
    """Scheme and host that uploads and blobs are sent on to."""
    host: str = ""


@contextlib.contextmanager
def small_registry(certificate: tuple[Path, Path] | None = None) -> Iterator[Stored]:
    """A registry on a free port; with a certificate and its key, over TLS."""
    stored = Stored()

    class Handler(_Handler):
        registry = stored

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    stored.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stored
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: Stored
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self._may_go_on():
            self._get()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if self._may_go_on():
            self._answer(
                202, headers={"Location": f"{self.registry.elsewhere}/v2/up{self.path.removeprefix('/v2')}one?state=x"}
            )

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if not self._may_go_on():
            return
        data = self.rfile.read(length)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        parts = urlsplit(self.path)
        if "/manifests/" in parts.path:
            kept = (data, self.headers["Content-Type"])
            self.registry.manifests |= {parts.path.rpartition("/")[2]: kept, digest: kept}
            subject = "subject" in json.loads(data) and self.registry.lists_artefacts
            self._answer(201, headers={"OCI-Subject": "yes"} if subject else {})
        elif parse_qs(parts.query)["digest"] == [digest] and len(data) == length:
            self.registry.blobs[digest] = data
            self._answer(201)
        else:
            self._answer(400)

    def _get(self) -> None:
        last = urlsplit(self.path).path.rpartition("/")[2]
        if self.path.startswith("/token"):
            wanted = "Basic " + base64.b64encode(b"user:password").decode()
            allowed = self.headers.get("Authorization") == wanted
            self._answer(200 if allowed else 401, json.dumps({"token": self.registry.token}).encode())
        elif self.path == "/v2/":
            self._answer(200, b"{}")
        elif "/blobs/" in self.path and self.registry.elsewhere and self.command == "GET":
            self._answer(307, headers={"Location": f"{self.registry.elsewhere}{self.path}"})
        elif "/blobs/" in self.path and last in self.registry.blobs:
            self._answer(200, self.registry.blobs[last])
        elif "/manifests/" in self.path and last in self.registry.manifests:
            data, media_type = self.registry.manifests[last]
            self._answer(200, data, headers={"Content-Type": media_type})
        elif "/referrers/" in self.path and self.registry.lists_artefacts:
            self._answer(200, self._artefacts(last))
        else:
            self._answer(404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')

    def _artefacts(self, subject: str) -> bytes:
        found = {digest: json.loads(data) for digest, (data, _) in self.registry.manifests.items() if ":" in digest}
        listed = [
            {
                "mediaType": manifest["mediaType"],
                "digest": digest,
                "size": len(self.registry.manifests[digest][0]),
                "artifactType": manifest["artifactType"],
            }
            for digest, manifest in found.items()
            if manifest.get("subject", {}).get("digest") == subject
        ]
        return json.dumps({"schemaVersion": 2, "manifests": listed}).encode()

    def _may_go_on(self) -> bool:
        asked = f"{self.command} {self.path}"
        self.registry.asked.append(asked)
        fault = self.registry.fault(asked)
        if fault is not None:
            self.close_connection = True
            if fault:
                self._answer(fault, b'{"errors":[{"code":"FAULT","message":"as ordered"}]}')
            return False
        token = self.registry.token
        if token is None or self.path.startswith("/token") or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        realm = f'Bearer realm="http://{self.registry.host}/token",service="test",scope="repository:a:pull,push"'
        self.close_connection = True
        self._answer(401, headers={"WWW-Authenticate": realm})
        return False

    def _answer(self, status: int, data: bytes = b"", *, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
