"""Our scripts and studies, run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONE_PROCESS = """
import sys
from slipway.cli import main
for command in sys.argv[1:]:
    sys.argv = ["slipway", *command.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def run_script(*arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of our scripts in `cwd` with the tests' Python; its output is in the failure's message."""
    script, *rest = map(str, arguments)
    return _run([sys.executable, str(ROOT / script), *rest], cwd=cwd, check=check)


def run_verbs(*commands: str, cwd: Path) -> None:
    """Run `slipway` with each command's words in turn, in one process: the libraries are imported once."""
    _run([sys.executable, "-c", ONE_PROCESS, *commands], cwd=cwd, check=True)


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
