"""Our scripts and studies, run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_script(*arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of our scripts in `cwd` with the tests' Python; its output is in the failure's message."""
    script, *rest = map(str, arguments)
    return _run([sys.executable, str(ROOT / script), *rest], cwd=cwd, check=check)


def run_study(name: str, *arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks.studies.<name>` in `cwd`, as `run_script` runs a script."""
    command = [sys.executable, "-m", f"benchmarks.studies.{name}", *map(str, arguments)]
    return _run(command, cwd=cwd, check=check, environment={**os.environ, "PYTHONPATH": str(ROOT)})


def _run(
    command: list[str], *, cwd: Path, check: bool, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done
