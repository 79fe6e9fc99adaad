"""A gateway that taps, its journal and its collector."""

import contextlib
import io
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slipway.cli import journal as cli
from slipway.client import Client, Options
from slipway.errors import SlipwayError
from slipway.operations.journal.run import run_collector
from slipway.operations.journal.store import Store
from slipway.serving import Ports
from tests.support.gateways import KEYS, Asked, running_gateway, write_gateway
from tests.support.image_files import encode


@dataclass
class Journal:
    """A gateway that taps, and the files of its journal."""

    asked: Asked
    settings_file: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def settings(self) -> Any:
        return self.asked.gateway.plan.settings

    def run(self, verb: str, *words: str) -> dict[str, Any]:
        """The JSON line of `slipway journal VERB`; not of `run`, which has signals of its own."""
        arguments = cli.parser().parse_args([verb, str(self.settings_file), *words, "--json"])
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            cli.main(arguments)
        result: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
        return result

    def empty(self) -> dict[str, int]:
        """What `slipway journal run --once` does."""
        return run_collector(self.settings, ended=threading.Event(), say=lambda _: None, once=True)

    def collect(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "slipway", "journal", "run", str(self.settings_file)]
        with (self.settings_file.parent / "collector.log").open("ab") as log:
            self.running.append(subprocess.Popen(command, stderr=log, stdout=log))
        return self.running[-1]

    def said(self) -> str:
        return (self.settings_file.parent / "collector.log").read_text()

    def client(self, protocol: str = "grpcs") -> Client:
        options = Options(key=KEYS["pets"], certificate=self.asked.certificate)
        return Client(f"{protocol}://{self.asked.host_port}", model="colours", options=options)

    def rows(self) -> int:
        try:
            with Store.of(self.settings, make=False) as store:
                return int(store.query("SELECT count(*) FROM rows")[0][0])
        except SlipwayError:  # not made yet
            return 0


@contextlib.contextmanager
def tapped(folder: Path, *, ports: Ports, repository: Path, **observe: Any) -> Iterator[Journal]:
    """A gateway in front of the server at `ports` that taps every request, and a journal without a collector."""
    observe = {"share": 1.0, "per_second": 10_000, "metrics_port": Ports.free().http, **observe}
    path = write_gateway(folder, ports=ports, repository=str(repository), observe=observe)
    with running_gateway(path) as asked:
        one = Journal(asked, path)
        try:
            yield one
        finally:
            for process in one.running:
                process.kill()
                process.wait()


class Traffic:
    """Clients of both protocols that ask without a pause; counts answers, and errors."""

    def __init__(self, journal: Journal) -> None:
        self.answers, self.errors = 0, 0
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(journal, one)) for one in ("grpcs", "https")]

    def _ask(self, journal: Journal, protocol: str) -> None:
        images = pictures(40, seed=len(protocol))
        with journal.client(protocol) as client:
            for number in itertools.count():
                if self._ended.is_set():
                    return
                batch = [images[number % 40], b"not an image", images[(number * 7) % 40]][: 1 + number % 3]
                results = list(client.classify_many(batch, full=number % 2 == 0))
                with self._lock:
                    self.answers += sum(result.error is None for result in results)
                    self.errors += sum(result.error is not None for result in results)
                time.sleep(0.01)

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def pictures(count: int, *, seed: int = 22) -> list[bytes]:
    """Distinct images that the example classifies."""
    draw = random.Random(seed)
    colours = [(220, 0, 0), (0, 220, 0), (0, 0, 220)]
    return [
        encode(Image.new("RGB", (40 + n % 50, 40 + n // 50), draw.choice(colours)), draw.choice(("PNG", "JPEG")))
        for n in range(count)
    ]


def until(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size, where this user may mount one."""
    folder.mkdir()
    options = f"size={size},mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
