"""Starts, asks and ends the stacks of the study, and freezes each while others are measured."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import psutil

from benchmarks.studies.climbing import SETTLE_S
from benchmarks.studies.efficiency.sides import work_of
from benchmarks.studies.peers.environments import python_of
from benchmarks.studies.study import ROOT
from slipway.benchmark.http_client import HttpClient, message
from slipway.benchmark.pool import Pool, PoolConnection
from slipway.benchmark.processes import give_way
from slipway.benchmark.server import HttpConnection, ServedAnswer, TritonConnection
from slipway.contract import GateError
from slipway.contract.serving import CpuServing, Serving, settle
from slipway.repository import Classifier
from slipway.repository.contents import contents
from slipway.repository.plan import plan
from slipway.serving import Ports, serve

SERVERS = Path(__file__).parent / "servers"
HOST = "127.0.0.1"
START_S = 120.0
END_S = 20.0
PORTS = 4
BOUNDARY = "slipway"
Body = tuple[bytes, dict[str, str]]
"""The body of a POST request, and its headers."""


def raw(image: bytes) -> Body:
    return image, {"Content-Type": "image/jpeg"}


def form(image: bytes, *, field: str) -> Body:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="image.jpg"\r\n'
    body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True)
class Peer:
    """A stack that is not ours."""

    script: str
    environment: str
    path: str | None = "/classify"
    """Path of the POST request; None if it speaks Triton's own protocol over gRPC."""
    body: Callable[[bytes], Body] = raw
    same_work: bool = True
    """Whether it runs our steps. Otherwise the answers may differ."""
    options: tuple[str, ...] = ()

    def skilled(self) -> Self:
        """Return the same server with the classifier of a skilled team instead of our steps."""
        return replace(self, same_work=False, options=("--skilled",))


class Setting(NamedTuple):
    """A setting that is searched for each stack."""

    max_batch: int
    pinned: bool

    def __str__(self) -> str:
        return f"batches up to {self.max_batch}" + (", pinned" if self.pinned else "")


FRAMEWORKS = {
    "fastapi": Peer("fastapi_server.py", "fastapi"),
    "fastapi_workers": Peer("fastapi_workers.py", "fastapi"),
    "litserve": Peer("litserve_server.py", "litserve", path="/predict"),
    "mlserver": Peer("mlserver_server.py", "mlserver", path=None),
    "ray": Peer("ray_server.py", "ray", path="/"),
    "bentoml": Peer("bentoml_server.py", "bentoml"),
}
TUTORIAL = "tutorial"
PEERS = {
    **FRAMEWORKS,
    **{f"{name}_skilled": peer.skilled() for name, peer in FRAMEWORKS.items()},
    TUTORIAL: Peer("tutorial_server.py", "fastapi", body=partial(form, field="file"), same_work=False),
}
DEFAULT = "slipway_default"
OURS = {"slipway_fused": "fused", DEFAULT: "auto", "slipway_steps": "steps", "slipway_fused_grpc": "fused"}
"""Layout by name of the stack. Each is asked over HTTP as most peers are, or over gRPC as MLServer is, since Python's
clients for the two differ in cost."""
POOL = "pool"
"""Name of the stack without a server: the workers of the study `efficiency`."""


class Http:
    """A peer over HTTP. Use as `async with`; asks as `slipway.benchmark.server.TritonConnection`."""

    def __init__(self, url: str, bodies: Sequence[Body]) -> None:
        self._messages = [message(url, body, headers) for body, headers in bodies]
        self._client = HttpClient(urlsplit(url).netloc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *given: object) -> None:
        await self._client.__aexit__(*given)

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        """Ask for one image. Returns None for a right answer, else the reason why it is not right."""
        answer = await self.answer(image, deadline_s=deadline_s)
        return answer if isinstance(answer, str) else None

    async def answer(self, image: int, *, deadline_s: float) -> ServedAnswer | str:
        try:
            status, _, text = await self._client.post(self._messages[image], deadline_s=deadline_s)
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return f"error {type(error).__name__}: {error}"
        if status != 200:
            return f"error {status}"
        answer = json.loads(text)
        if answer["status"]:
            return f"STATUS {answer['status']}"
        return ServedAnswer(answer["label"].encode(), answer["score"], b"")


Client = Http | TritonConnection | PoolConnection


@dataclass(frozen=True)
class Side:
    """A running stack, frozen while it is not asked, so that its idle processes take no time from the measured
    stack."""

    pid: int
    client: Callable[[], Client]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        self.thaw()
        try:
            async with self.client() as client:
                yield client
        finally:
            self.freeze()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in family(self.pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                if number == signal.SIGCONT:
                    give_way(process.pid)  # a framework may have started a session of its own


def family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kept_cores(pid: int) -> set[int]:
    """Return the cores to which some thread, of the processes from `pid` down, keeps."""
    kept: set[int] = set()
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with suppress(ProcessLookupError):
                    cores = os.sched_getaffinity(thread.id)
                    kept |= cores if len(cores) == 1 else set()
    return kept


@contextmanager
def peer(
    name: str, images: Sequence[bytes], folder: Path, setting: Setting, *, workers: int, log: Path
) -> Iterator[Side]:
    """Start a peer, and wait until it answers.

    Raises:
        GateError: it does not start or answer, or its workers do not keep to cores; the error has the end of its log.
    """
    kind = PEERS[name]
    port = _free_port()
    options = ("--folder", folder, "--port", port, "--workers", workers, "--max-batch", setting.max_batch)
    pinned = ["--pinned"] if setting.pinned else []
    command = [python_of(kind.environment), SERVERS / kind.script, *options, *kind.options, *pinned]
    with log.open("wb") as file:
        # Of src, slipway.steps is imported alone: it needs nothing of slipway's other parts.
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        process = subprocess.Popen(
            list(map(str, command)), stdout=file, stderr=file, start_new_session=True, env=environment
        )
    client: Callable[[], Client] = partial(TritonConnection, f"{HOST}:{port}", model="peer", images=images)
    if kind.path is not None:
        client = partial(Http, f"http://{HOST}:{port}{kind.path}", [kind.body(image) for image in images])
    side = Side(process.pid, client)
    try:
        asyncio.run(_ready(side, name, process, log, pinned=workers if setting.pinned else 0))
        yield side
    finally:
        side.thaw()
        _end(process)


@contextmanager
def ours(
    name: str, classifier: Classifier, images: Sequence[bytes], setting: Setting, *, workers: int, work: Path
) -> Iterator[Side]:
    """Start Triton with one layout, not supervised, as the peers are not."""
    # The layout that `auto` chooses stays as it is: it has no setting.
    asked = {} if name == DEFAULT else {**_asked(setting, workers=workers), "layout": OURS[name]}
    served = replace(classifier, settings=_serving(classifier, asked, workers=workers))
    # Not by `assemble`, which takes only what passed an accuracy gate: random weights have no accuracy.
    plan(contents([served], lane="cpu", multi={}), work).write()
    with serve(work, ports=Ports.free(), log=work.with_suffix(".log")) as server:
        connect: Callable[..., Client] = partial(HttpConnection, http_url=server.http_url)
        if name.endswith("_grpc"):
            connect = TritonConnection
        side = Side(server.process.pid, partial(connect, server.grpc_url, model=classifier.name, images=images))
        try:
            yield side
        finally:
            side.thaw()


@contextmanager
def pool(classifier: Classifier, images: Sequence[bytes], setting: Setting, *, workers: int) -> Iterator[Side]:
    """Start as many processes without a server."""
    serving = _serving(classifier, _asked(setting, workers=workers), workers=workers)
    with Pool(work_of(classifier, images, serving), workers=workers) as running:
        side = Side(running.pid, running.connect)
        try:
            yield side
        finally:
            side.thaw()


def settings_of(name: str, classifier: Classifier, *, batches: Sequence[int], workers: int) -> list[Setting]:
    """Return the settings to search: a single one for a stack that is measured unchanged, else each batch, pinned and
    not."""
    if name == TUTORIAL:  # takes one image at a time
        return [Setting(1, False)]
    if name == DEFAULT:
        auto = CpuServing.of(_serving(classifier, {}, workers=workers))
        return [Setting(auto.preferred_batch_size, auto.pinned)]
    return [Setting(*each) for each in product(batches, (False, True))]


def _asked(setting: Setting, *, workers: int) -> dict[str, object]:
    return {"preferred_batch_size": setting.max_batch, "pinned": setting.pinned, "instances": workers, "threads": 1}


def _serving(classifier: Classifier, asked: Mapping[str, object], *, workers: int) -> Serving:
    return settle(classifier.serving.model_copy(update=dict(asked)), cores=workers, classifiers=1)


async def _ready(side: Side, name: str, process: subprocess.Popen[bytes], log: Path, *, pinned: int) -> None:
    """Wait for the first right answer, and until so many workers keep to a core."""
    over_s, problem = time.monotonic() + START_S, "it did not answer"
    async with side.client() as client:
        while time.monotonic() < over_s and process.poll() is None:
            answer = await client.answer(0, deadline_s=SETTLE_S)
            kept = len(kept_cores(process.pid)) if pinned else 0
            if not isinstance(answer, str) and kept == pinned:
                return
            problem = answer if isinstance(answer, str) else f"{kept} of {pinned} workers keep to a core"
            await asyncio.sleep(0.2)
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise GateError(f"{name} did not get ready in {START_S:.0f} s ({problem}); its log ends with:\n{end}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and kill the processes that are left after some time."""
    processes = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_S)
    for left in psutil.wait_procs(processes, timeout=5)[1]:
        print(f"{left.pid} had to be killed", file=sys.stderr)
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait(timeout=END_S)


def _free_port() -> int:
    """Return the first of four free ports, since some peers take the next ones too."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind((HOST, 0))
            port = int(first.getsockname()[1])
            with suppress(OSError, OverflowError):
                for following in range(port + 1, port + PORTS):
                    stack.enter_context(socket.socket()).bind((HOST, following))
                return port
