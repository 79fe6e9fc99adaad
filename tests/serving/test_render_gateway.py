"""Envoy itself, with the files that a cluster mounts: who is let in, and how keys change while it runs."""

import http.client
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.binary import find_envoy
from slipway.operations.gateway.listener import key_resource
from slipway.operations.gateway.settings import KEY_HEADER
from slipway.serving import Ports, Server
from slipway.system.yaml_json import dump_yaml
from tests.support.gateways import KEYS, grpc_key, needs_envoy
from tests.support.processes import running_process
from tests.support.rendered import BOTH, render, settings
from tests.support.v2_requests import IMAGE, message
from tests.support.validators import Mounted

pytestmark = needs_envoy
NEW_KEY = "another-key-of-the-team-pets-01234"


class Supervisor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Asked:
    def __init__(self, port: int, certificate: Path, mounted: Mounted) -> None:
        self.port, self.mounted = port, mounted
        self._certificate = certificate
        self._context = ssl.create_default_context(cafile=certificate)

    def status(self, key: str | None, path: str = "/v2/health/ready") -> int:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self._context, timeout=10)
        try:
            connection.request("GET", path, headers={KEY_HEADER: key} if key else {})
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def stub(self) -> GRPCInferenceServiceStub:
        credentials = grpc.ssl_channel_credentials(self._certificate.read_bytes())
        return GRPCInferenceServiceStub(grpc.secure_channel(f"localhost:{self.port}", credentials))

    def becomes(self, key: str | None, status: int) -> bool:
        until = time.monotonic() + 20
        while self.status(key) != status:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture(scope="module")
def asked(example_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("mounted")
    file = settings(folder)
    render("kubernetes", file, folder / "out", *BOTH)
    render("secrets", file, folder / "secrets")
    own = Ports.free()
    supervisor = ThreadingHTTPServer(("127.0.0.1", 0), Supervisor)
    Thread(target=supervisor.serve_forever, daemon=True).start()
    http_port, grpc_port = (int(url.rpartition(":")[2]) for url in (example_server.http_url, example_server.grpc_url))
    ports = {8443: own.grpc, 8004: own.metrics, 8003: supervisor.server_port, 8000: http_port, 8001: grpc_port}
    mounted = Mounted(folder / "out", folder / "secrets", folder / "etc", ports=ports)
    command = [find_envoy(), "--config-path", mounted.bootstrap, "--concurrency", "1", "--disable-hot-restart"]
    with (folder / "log").open("w") as log, running_process(command, stdout=log, stderr=log):
        try:
            yield Asked(own.grpc, folder / "tls/certificate.pem", mounted)
        finally:
            supervisor.shutdown()
            supervisor.server_close()


def test_a_key_of_the_mounted_file_is_let_in_and_no_other(asked: Asked) -> None:
    assert asked.becomes(KEYS["pets"], 200)
    assert asked.status(KEYS["cars"]) == 200
    assert asked.status(None) == 401
    assert asked.status("a-key-of-nobody-0123456789") == 401
    assert asked.status(KEYS["pets"], "/v2/models/colours/infer") == 403
    assert asked.status(KEYS["pets"], "/v2/repository/index") == 403


def test_requests_are_answered_and_a_new_share_is_in_force_without_a_restart(asked: Asked, tmp_path: Path) -> None:
    assert asked.becomes(KEYS["pets"], 200)
    stub, request = asked.stub(), message(IMAGE, outputs=("LABEL",))
    arms = Counter(arm_of(stub, request) for _ in range(20))
    assert arms["stable"] >= 10, "at a weight of 10 %"
    render("kubernetes", settings(tmp_path), tmp_path / "out", *BOTH[:-1], "100")
    new = (tmp_path / "out/components/candidate/routes.yaml").read_text()
    asked.mounted.replace("routes/routes.yaml", new)
    until = time.monotonic() + 20
    while arm_of(stub, request) != "candidate":
        assert time.monotonic() < until
    assert {arm_of(stub, request) for _ in range(20)} == {"candidate"}


def arm_of(stub: GRPCInferenceServiceStub, request: ModelInferRequest) -> str:
    """The server that an answered request was given to."""
    answer, call = stub.ModelInfer.with_call(request, metadata=grpc_key(), timeout=10)
    assert answer.raw_output_contents
    return str(dict(call.initial_metadata())["slipway-arm"])


def test_new_keys_are_in_force_without_a_restart(asked: Asked) -> None:
    """A Secret that changes is a new folder behind a link, renamed into place."""
    assert asked.becomes(KEYS["pets"], 200)
    asked.mounted.replace("keys/keys.yaml", dump_yaml(key_resource({NEW_KEY: "pets"})))
    assert asked.becomes(NEW_KEY, 200)
    assert asked.becomes(KEYS["pets"], 401)
    assert asked.becomes(KEYS["cars"], 401)
