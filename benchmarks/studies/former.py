"""Serves a repository by the code of an earlier revision: what a server was before is measured in the same run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import GateError
from slipway.serving import Ports

START_S = 300
SERVE = """
import sys
from pathlib import Path
from slipway.serving import Ports, serve

repository, log, *ports = sys.argv[1:]
with serve(Path(repository), ports=Ports(*map(int, ports)), log=Path(log)) as server:
    print(server.process.pid, flush=True)
    sys.stdin.read()
"""
ASSEMBLE = """
import sys
from pathlib import Path
from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
from slipway.repository.contents import contents
from slipway.repository.plan import plan

backbone, made, repository = sys.argv[1:]
classifier = open_classifier(random_classifier(backbone, Path(made), images=1))
plan(contents([classifier], lane="cpu", multi={}), Path(repository)).write()
"""


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, with `-dirty` if it was changed."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except subprocess.CalledProcessError as error:
        raise GateError(f"{checkout} is not a checkout of this project: {error.stderr.strip()}") from None


@dataclass(frozen=True)
class FormerServer:
    grpc_url: str
    http_url: str
    pid: int


def assemble_formerly(checkout: Path, backbone: str, work: Path) -> Path:
    """Assemble the INT8 classifier with random weights by the code in `checkout`, with its defaults; returns the
    repository."""
    repository = work / "former"
    arguments = (backbone, str(work / "former-made"), str(repository))
    done = subprocess.run(
        [sys.executable, "-c", ASSEMBLE, *arguments],
        cwd=checkout,
        env=_environment(checkout),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode:
        raise GateError(f"{checkout}: its code assembles no {backbone}:\n{done.stderr[-2000:]}")
    return repository


@contextmanager
def served_formerly(checkout: Path, repository: Path, *, log: Path) -> Iterator[FormerServer]:
    """Serve `repository` by the launcher in `checkout`, without a supervisor, for the duration of the block.

    Raises:
        GateError: it does not serve; the message holds what it wrote.
    """
    ports = Ports.free()
    errors = log.with_suffix(".errors")
    numbers = (str(port) for port in (ports.http, ports.grpc, ports.metrics, ports.status))
    with (
        errors.open("w") as said,
        subprocess.Popen(
            [sys.executable, "-c", SERVE, str(repository), str(log), *numbers],
            cwd=checkout,
            env=_environment(checkout),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not (pid := process.stdout.readline()):
                raise GateError(f"{checkout}: its code does not serve {repository}:\n{errors.read_text()[-2000:]}")
            yield FormerServer(f"127.0.0.1:{ports.grpc}", f"127.0.0.1:{ports.http}", int(pid))
        finally:
            process.stdin.close()  # it ends its server, and then itself
            process.wait(START_S)


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{checkout / 'src'}"}
