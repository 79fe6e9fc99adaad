"""Real servers, one for each repository, for the whole session."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.serving import Ports, Server, serve

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


def free_ports() -> Ports:
    """Three ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return Ports(*ports)


@pytest.fixture(scope="session")
def example_server() -> Iterator[Server]:
    """Serves `colours`: an image filled with a colour gets its name (blue, green, red)."""
    with serve(EXAMPLE, ports=free_ports()) as server:
        yield server


@pytest.fixture(scope="session")
def digits_server(digits: Path) -> Iterator[Server]:
    """Serves the demo's digits in INT8."""
    with serve(digits / "repository", ports=free_ports()) as server:
        yield server
