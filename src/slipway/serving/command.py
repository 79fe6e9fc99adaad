"""The command line of a hardened tritonserver."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.serving.binary import TritonBinary
from slipway.serving.ports import HOST, Ports

if TYPE_CHECKING:
    from slipway.contract import Lane  # `slipway reload` needs none of it, and it takes 0.2 s

EXIT_TIMEOUT_S = 3  # for requests in flight; an idle keep-alive connection makes Triton use all of it
CONNECTION_AGE_MS = 300_000
HTTP_BODY_BYTES = 160 * 2**20
"""Largest HTTP body that a newer server reads. Slipway's clients send images of up to 128 MiB."""


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
