"""What a company's machine has in its environment does not reach a server that listens on loopback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.asking import get
from tests.support.v2_requests import RED

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
Launch = Callable[..., Any]
DEAD_PROXY = "http://127.0.0.1:9"
PROXIES = {
    name: DEAD_PROXY
    for lower in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for name in (lower, lower.upper())
} | {"no_proxy": "example.com", "NO_PROXY": "example.com"}
IGNORED = {
    "AIP_HTTP_PORT": "nobody",
    "AIP_MODE": "PREDICTION",
    "GRPC_POLL_STRATEGY": "none",
    "GRPC_TRACE": "all",
    "GRPC_VERBOSITY": "debug",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
}
HARMLESS = {
    "CUDA_VISIBLE_DEVICES": "GPU-none,99",
    "LD_LIBRARY_PATH": "/nowhere:",
    "OMP_NUM_THREADS": "many",
    "OMP_PROC_BIND": "nobody",
    "OPENBLAS_NUM_THREADS": "0",
    "OPENSSL_CONF": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONWARNINGS": "error",
    "REQUESTS_CA_BUNDLE": "/nowhere",
    "SSL_CERT_DIR": "/nowhere",
    "SSL_CERT_FILE": "/nowhere",
}


@pytest.fixture
def ready(launch: Launch) -> Callable[[dict[str, str]], Any]:
    def ready(environment: dict[str, str]) -> Any:
        launched = launch(EXAMPLE, environment=environment)
        launched.wait_for("ready after")
        status, said = get(launched, "/ready")
        assert (status, said["ready"], said["answering"], said["broken"]) == (200, True, ["colours"], {})
        return launched

    return ready


def test_the_launcher_asks_its_server_past_every_proxy(ready: Callable[..., Any]) -> None:
    ready(PROXIES)


def test_variables_that_would_end_or_open_the_server_are_left_out_and_named(ready: Callable[..., Any]) -> None:
    launched = ready(IGNORED)
    (ignored,) = launched.events("ignored")
    assert all(name in ignored["message"] for name in IGNORED)
    server = psutil.Process(launched.server().pid)
    assert not set(IGNORED) & set(server.environ())
    assert {one.laddr.port for one in server.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN} == {
        *(launched.ports.http, launched.ports.grpc, launched.ports.metrics)
    }
    assert all(line.startswith("{") for line in launched.said().splitlines()), "gRPC's trace is not among the events"


def test_what_python_openmp_cuda_and_openssl_read_changes_nothing(
    ready: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    launched = ready(HARMLESS)
    server = type("Server", (), {"http_url": f"127.0.0.1:{launched.ports.http}"})
    assert connect(server, "http").ask("colours", [RED])["LABEL"][0, 0] == b"red"
