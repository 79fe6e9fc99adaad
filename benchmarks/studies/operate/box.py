"""Runs the processes on the box: servers with a gateway, and those beside them. Verbs are run as a user runs them."""

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.studies.operate.studio import Studio
from slipway.errors import SlipwayError
from slipway.serving import Ports

READY_S = 120.0


@dataclass
class Box:
    """A box: the folder with all of its files, and its ports."""

    folder: Path
    stable: Ports = field(default_factory=Ports.free)
    candidate: Ports = field(default_factory=Ports.free)
    own: Ports = field(default_factory=Ports.free)
    """Ports of the gateway (`grpc`), its metrics, the journal's (`http`) and the watch's (`status`)."""
    studio: Studio | None = None
    """The Label Studio of the box; without one, labels come by CSV files."""
    steps: dict[str, float] = field(default_factory=dict)
    """Seconds of each step."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.folder.resolve() / "state")}

    def verb(self, title: str, words: str, *, allowed: tuple[int, ...] = (0,)) -> object:
        """Run `slipway WORDS`, its output on this screen; returns the content of its JSON line, for a model to parse.

        Raises:
            SlipwayError: it ended with an exit code that is not `allowed`.
        """
        print(f"\n── {title}: slipway {words}", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", "slipway", *shlex.split(words), "--json"]
        result: object = None
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    result = json.loads(line)
                else:
                    print(f"  {line}", end="", flush=True)
        if process.returncode not in allowed:
            raise SlipwayError(f"{title} ended with exit code {process.returncode}; its own message is above")
        self.steps[title] = round(self.steps.get(title, 0.0) + time.monotonic() - started, 1)
        return result

    @contextmanager
    def beside(self, name: str, words: str) -> Iterator[None]:
        """Run `slipway WORDS` beside the block; its output goes to `<name>.log`."""
        path = self.folder / f"{name}.log"
        print(f"\n── beside: slipway {words}    (what it says: {path})", flush=True)
        with path.open("wb") as log:
            command = [sys.executable, "-m", "slipway", *shlex.split(words)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        try:
            yield
            if process.poll() is not None:
                raise SlipwayError(
                    f"slipway {words} ended with exit code {process.returncode}: see {self.folder / name}.log"
                )
        finally:
            process.terminate()
            process.wait(timeout=60)

    @contextmanager
    def serving(self, name: str, repository: Path, ports: Ports, *, options: str = "") -> Iterator[None]:
        """Serve a repository beside the block, which begins when every classifier answers."""
        flags = " ".join(f"--{one}-port {number}" for one, number in vars(ports).items())
        with self.beside(name, f"serve {repository} {flags} {options}"):
            wait_until(lambda: answers(f"http://127.0.0.1:{ports.status}/ready"), what=f"{name} answers")
            yield

    def metrics(self) -> str:
        """Return the metrics of the watch, in Prometheus' text form; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.own.status}/metrics", timeout=2) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""


def wait_until(holds: Callable[[], bool], *, what: str, timeout_s: float = READY_S) -> float:
    """Wait until a condition holds; returns the seconds that it took.

    Raises:
        SlipwayError: it does not hold in time.
    """
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > timeout_s:
            raise SlipwayError(f"after {timeout_s:g} s it does not hold that {what}")
        time.sleep(0.2)
    return time.monotonic() - started


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
