"""The ports that a server and its supervisor listen on: their defaults, free ones, and the check that they are free."""

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from slipway.errors import ServingError

HOST = "127.0.0.1"  # the wheel's server has known CVEs: loopback only, see docs/adr/0001
_BELOW_EPHEMERAL = range(20_000, 32_768)
"""Ports that Linux gives to outgoing connections only if told to."""

SPOKEN: Mapping[str, str] = MappingProxyType(
    {
        "http": "Triton's HTTP",
        "grpc": "Triton's gRPC",
        "metrics": "Triton's metrics, by HTTP for Prometheus",
        "status": "the supervisor, by HTTP",
    }
)
"""What each of `Ports` is for, with its protocol."""


@dataclass(frozen=True)
class Ports:
    """The ports of a server and its supervisor, on loopback."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    status: int = 8003
    """The port of the supervisor."""

    @classmethod
    def free(cls) -> Self:
        """Four ports that are free now, none of which the kernel gives to an outgoing connection meanwhile."""
        draw, ports = random.SystemRandom(), list[int]()
        with ExitStack() as stack:
            while len(ports) < 4:
                port = draw.choice(_BELOW_EPHEMERAL)
                with suppress(OSError):  # in use
                    stack.enter_context(socket.create_server((HOST, port)))
                    ports.append(port)
        return cls(*ports)


def check_ports(ports: Ports, *, supervised: bool, address: str = HOST) -> None:
    """Raises ServingError if two ports are equal, or one is in use; a `supervised` server has one more port."""
    given = {name: port for name, port in vars(ports).items() if supervised or name != "status"}
    if len(set(given.values())) < len(given):
        options = ", ".join(f"--{name}-port" for name in given)
        raise ServingError(f"ports {given}: all must differ; see {options}")
    for name, port in given.items():
        try:
            socket.create_server((address, port)).close()
        except (OSError, OverflowError) as error:
            raise ServingError(
                f"port {port} ({name}) on {address} cannot be used: {getattr(error, 'strerror', error)}; end the "
                f"process that listens there, or choose another with --{name}-port"
            ) from None
