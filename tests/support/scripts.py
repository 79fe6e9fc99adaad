"""Our scripts and studies, run as a user runs them."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import slipway.cli

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


def run_slipway(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `slipway` in a process of its own, with these variables in its environment; it may fail."""
    command = [sys.executable, "-m", "slipway", *map(str, words)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def run_verbs(*commands: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `slipway` with each command's words in turn, in one process: the libraries are imported once."""
    return _run([sys.executable, "-c", ONE_PROCESS, *commands], cwd=cwd, check=True)


def run_here(verb: str, *arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a verb in `cwd` as `run_script` does, but in this process: it need not import the libraries again."""
    words, code = ["slipway", verb, *map(str, arguments)], 0
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", words)
        try:
            slipway.cli.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return _checked(subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue()), check=check)


def refused(verb: str, *arguments: str | Path, cwd: Path) -> str:
    """What a verb says on stderr that ends with 1, without a traceback."""
    done = run_here(verb, *arguments, cwd=cwd, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def step_here(title: str, words: Sequence[str], *, cwd: Path) -> int:
    """A stage of `slipway up` or of a turn, in this process; its output is printed."""
    done = run_here(*words, cwd=cwd, check=False)
    print(f"── {title}\n{done.stdout}{done.stderr}")
    return done.returncode


def run_study(name: str, *arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks.studies.<name>` in `cwd`, as `run_script` runs a script."""
    command = [sys.executable, "-m", f"benchmarks.studies.{name}", *map(str, arguments)]
    return _run(command, cwd=cwd, check=check, environment={**os.environ, "PYTHONPATH": str(ROOT)})


def _run(
    command: list[str], *, cwd: Path, check: bool, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False)
    return _checked(done, check=check)


def _checked(done: subprocess.CompletedProcess[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    if check and done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        pytest.fail(f"{' '.join(done.args)} ended with {done.returncode}\n{said}")
    return done
