"""Starts `stub_server.py` in a process of its own, for tests."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import running_process

SCRIPT = Path(__file__).with_name("stub_server.py")


@dataclass(frozen=True)
class StubProcess:
    url: str
    pid: int
    log_path: Path

    def log(self) -> list[dict[str, Any]]:
        """What it did so far: one dictionary for each answer, in their order. It goes with the server."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@contextmanager
def stub_process(*arguments: object) -> Iterator[StubProcess]:
    """A running stub server; the arguments are those of the script."""
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log.jsonl"
        command = [sys.executable, str(SCRIPT), "--log", str(log_path), *map(str, arguments)]
        with running_process(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            yield StubProcess(ready["url"], ready["pid"], log_path)
