"""The `python3` that the server's stubs will use, and what happens when a step is loaded by it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REHEARSAL = Path(__file__).with_name("rehearsal.py")


@dataclass(frozen=True)
class Rehearsal:
    """How one job went in a process of its own."""

    outputs: Mapping[str, Any]
    problem: str
    """Empty when nothing went wrong."""
    seconds: float = 0.0
    peak_mb: float = 0.0
    """The most memory that the process had."""


@dataclass(frozen=True)
class Interpreter:
    """Isolated, as the stub runs it: neither PYTHONPATH nor the user's own packages reach it."""

    path: Path
    environment: Mapping[str, str]

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> Rehearsal:
        """Do one job of `rehearsal.py`. Nothing is written beside the step."""
        try:
            done = subprocess.run(
                [str(self.path), "-I", "-B", str(REHEARSAL)],
                input=json.dumps(job).encode(),
                capture_output=True,
                env=dict(self.environment),
                timeout=timeout_s,
                check=False,
            )
        except OSError as error:
            return Rehearsal({}, f"{self.path} does not start: {error.strerror}")
        except subprocess.TimeoutExpired:
            return Rehearsal({}, f"not done after {timeout_s:g} s")
        if done.returncode != 0 or not done.stdout:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            return Rehearsal({}, f"the process ended with exit code {done.returncode}{last and ': '}{last}")
        result = json.loads(done.stdout)
        problem = _first_line(result.get("error", ""))
        return Rehearsal(result.get("outputs", {}), problem, result["seconds"], result["peak_mb"])


def _first_line(text: str) -> str:
    """Libraries' messages have stack traces of their own after the first lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]
