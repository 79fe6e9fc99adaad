"""Starts `slipway serve` as a user does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.serving import Ports


@dataclass(frozen=True)
class Launcher:
    process: subprocess.Popen[bytes]
    ports: Ports
    messages: Path
    environment: dict[str, str]

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.messages.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_until_all_answer(self, *, after: int = 0, timeout_s: float = 300.0) -> None:
        """Wait until the launcher has said more than `after` times that it is ready."""
        deadline = time.monotonic() + timeout_s
        while len(self.events("ready")) <= after:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the launcher did not get ready:\n{self.messages.read_text()}")
            time.sleep(0.05)

    def server_pid(self) -> int:
        return int(self.events("ready")[-1]["pid"])

    def reload(self) -> None:
        command = [sys.executable, "-m", "slipway", "reload", f"--status-port={self.ports.status}"]
        subprocess.run(command, check=True, env=self.environment, stdout=subprocess.DEVNULL)


@contextmanager
def launched(
    repository: Path,
    work: Path,
    *,
    ports: Ports | None = None,
    state: Path | None = None,
    timeout_s: float = 120.0,
    options: Sequence[str | Path] = (),
) -> Iterator[Launcher]:
    """Start a launcher on `ports`, or on free ones, and wait until all classifiers answer; it ends with the block.

    It keeps its key in `state`, or in a folder below `work`.

    It runs at nice 5, since the load generator shares its cores and would be late while the server is busy.
    """
    ports, messages = ports or Ports.free(), work / "messages"
    environment = {**os.environ, "XDG_STATE_HOME": str(state or work / "state")}
    flags = [f"--{name}-port={port}" for name, port in vars(ports).items()]
    with messages.open("wb") as file:
        command = [
            "nice",
            "-n",
            "5",
            sys.executable,
            "-m",
            "slipway",
            "serve",
            str(repository),
            *flags,
            f"--timeout-s={timeout_s:g}",
            *map(str, options),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)
    launcher = Launcher(process, ports, messages, environment)
    try:
        launcher.wait_until_all_answer(timeout_s=timeout_s + 10)
        yield launcher
    finally:
        process.terminate()
        process.wait(timeout=60)
