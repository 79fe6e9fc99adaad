"""The command line of a hardened tritonserver, and the ports that it listens on."""

import random
import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from slipway.errors import ServingError
from slipway.serving.binary import TritonBinary

if TYPE_CHECKING:
    from slipway.contract import Lane  # `slipway reload` needs none of it, and it takes 0.2 s

HOST = "127.0.0.1"  # the wheel's server has known CVEs: loopback only, see docs/adr/0001
EXIT_TIMEOUT_S = 3  # for requests in flight; an idle keep-alive connection makes Triton use all of it
_BELOW_EPHEMERAL = range(20_000, 32_768)
"""Ports that Linux gives to outgoing connections only if told to."""
CONNECTION_AGE_MS = 300_000
HTTP_BODY_BYTES = 160 * 2**20
"""Largest HTTP body that a newer server reads. Slipway's clients send images of up to 128 MiB."""

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


def command(
    binary: TritonBinary,
    models: Path,
    *,
    lane: "Lane",
    ports: Ports,
    admin_key: str,
    shm_prefix: str,
    address: str = HOST,
    options: Collection[str] = (),
) -> list[str]:
    """The command of a server that starts without models, with its administrative APIs behind a key.

    `address` is where its ports listen, and `options` are the names of options that it knows and 2.51 may not.
    """
    restricted = "shared-memory,model-repository,logging,trace"
    flags = {
        "model-repository": str(models),
        "model-control-mode": "explicit",
        "exit-on-error": "false",
        "exit-timeout-secs": str(EXIT_TIMEOUT_S),
        "http-address": address,
        "grpc-address": address,
        "metrics-address": address,
        # An idle connection holds a file that a new one needs. Calls under way are finished, and clients reconnect
        # by themselves. tritonserver has no such option for HTTP.
        "grpc-max-connection-age": str(CONNECTION_AGE_MS),
        "http-port": str(ports.http),
        "grpc-port": str(ports.grpc),
        "metrics-port": str(ports.metrics),
        "http-restricted-api": f"{restricted}:slipway-admin={admin_key}",
        "grpc-restricted-protocol": f"{restricted}:slipway-admin={admin_key}",
        "metrics-config": "histogram_latencies=true",  # 2.51 has none, and ignores it
    }
    newer = {"http-max-input-size": str(HTTP_BODY_BYTES), "allow-client-shm": "false"}
    flags |= {option: value for option, value in newer.items() if option in options}
    if binary.backend_directory is not None:
        flags["backend-directory"] = str(binary.backend_directory)
    backend_config = {
        "shm-region-prefix-name": shm_prefix,
        "shm-default-byte-size": str(lane.shm_default_bytes),
    }
    tensorrt = ["--backend-config=tensorrt,version-compatible=true"] if lane.tensorrt_version_compatible else []
    return [
        str(binary.path),
        "--disable-auto-complete-config",  # serve the configurations exactly as written
        *(f"--{flag}={value}" for flag, value in flags.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in backend_config.items()),
        *tensorrt,
        *lane.memory_options,
    ]


def memory_variables(lane: "Lane") -> dict[str, str]:
    """Variables for the memory allocator. Each call that loads a model copies what the server knows of all of them, in
    one of 8 arenas a core, which keep the memory: with 1,000 heads on two cores, 790 MB instead of 220."""
    return {"MALLOC_ARENA_MAX": "2"} if lane.bases else {}


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
