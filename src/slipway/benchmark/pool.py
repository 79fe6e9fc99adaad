"""Runs a classifier in worker processes without a server, to measure the cost of serving.

The workers run the step files that Triton runs and already hold the images, so only numbers travel. A pipe is the
queue, since a read takes all waiting requests up to a limit; a second pipe returns the answers.
"""

import asyncio
import itertools
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from slipway.errors import GateError
from slipway.steps.cores import keep_to_cores

# Messages of both pipes are far under PIPE_BUF, so each is written and read whole.
_REQUEST = struct.Struct("=II")
"""Number of the request, then index of the image."""
_ANSWER = struct.Struct("=Iiif3f")
"""Number of the request, then the fields of a `WorkerAnswer`."""
MAX_BATCH = 128
_READY = 2**32 - 1
"""Number that a warm worker sends instead of a request's number."""
_READ_BYTES = _ANSWER.size * 1024
READY_S, END_S = 120.0, 60.0
"""Seconds in which the next worker must be warm, and in which all must end once nobody asks them; it takes seconds."""


@dataclass(frozen=True)
class Work:
    """The work of every worker. All fields except `images` are those of a Triton step."""

    images: Sequence[bytes]
    preprocess: Mapping[str, Any]
    """The content of `preprocess.json`."""
    graph: Path
    arithmetic: str
    decision: Mapping[str, Any]
    """The content of `decision.json`."""
    labels: Sequence[str]
    threads: int
    """Number of threads of each worker."""
    pinned: bool
    """Whether each worker is pinned to its own cores."""
    max_batch: int
    """Most waiting images that a worker takes at once."""


@dataclass(frozen=True)
class WorkerAnswer:
    """The best class of an image, and its batch's time in each of the three steps."""

    status: int
    class_id: int
    score: float
    preprocess_ms: float
    engine_ms: float
    post_ms: float


class Pool:
    """`workers` warm processes in their own session. Use as a context manager: they end with the block.

    Raises:
        GateError: a worker did not get ready, ended, or hung; its messages are on standard error.
    """

    def __init__(self, work: Work, *, workers: int) -> None:
        assert 1 <= work.max_batch <= MAX_BATCH
        self.workers = workers
        self._work = work
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        queue_out, self._queue = os.pipe()
        self._answers, answers_in = os.pipe()
        life = f"from slipway.benchmark.pool import live; live({queue_out}, {answers_in}, workers={self.workers})"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", life],
            stdin=subprocess.PIPE,
            pass_fds=[queue_out, answers_in],
            start_new_session=True,
        )
        os.close(queue_out)
        os.close(answers_in)
        assert self._process.stdin
        try:
            with self._process.stdin as stdin:
                pickle.dump(self._work, stdin)
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        code = self._end()
        if code and kind is None:
            why = f" (killed: it hung for {END_S:.0f} s, or the memory was full)" if code == -signal.SIGKILL else ""
            raise GateError(f"a worker of the pool ended with exit code {code}{why}; its requests were not answered")

    @property
    def pid(self) -> int:
        """Process id of the first worker, whose session all workers share."""
        return self._process.pid

    def connect(self) -> "PoolConnection":
        """Connect from an event loop; only one connection at a time."""
        return PoolConnection(self._queue, self._answers, self._numbers)

    def _wait_until_ready(self) -> None:
        for ready in range(self.workers):
            if not select.select([self._answers], [], [], READY_S)[0]:
                raise GateError(
                    f"only {ready} of {self.workers} workers of the pool (pid {self.pid}) got ready, and no other "
                    f"within {READY_S:.0f} s; look at their messages on standard error, and whether other processes "
                    "hold the cores or the memory"
                )
            if len(os.read(self._answers, _ANSWER.size)) < _ANSWER.size:
                raise GateError(f"a worker of the pool ended with exit code {self._ended()} before it was ready")

    def _end(self) -> int:
        os.close(self._queue)  # a worker ends when its pipe is empty and has no writer
        os.close(self._answers)
        return self._ended()

    def _ended(self) -> int:
        """The exit code of the workers, which are ending. One that hangs is killed, and its code is negative."""
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)  # their own session: all of them
            return self._process.wait()


class PoolConnection:
    """The client's end of a pool. Use as an async context manager, like `slipway.benchmark.server.TritonConnection`."""

    def __init__(self, queue: int, answers: int, numbers: Iterator[int]) -> None:
        self._queue, self._answers, self._numbers = queue, answers, numbers
        self._waiting: dict[int, asyncio.Future[WorkerAnswer | str]] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._answers, self._receive)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._answers)

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        """Request one image. Returns None for a right answer, otherwise the reason."""
        answer = await self.answer(image, deadline_s=deadline_s)
        return answer if isinstance(answer, str) else None

    async def answer(self, image: int, *, deadline_s: float) -> WorkerAnswer | str:
        """Request one image. Returns its answer where the status is 0, otherwise the reason."""
        number = next(self._numbers)
        future = self._waiting[number] = self._loop.create_future()
        try:
            os.write(self._queue, _REQUEST.pack(number, image))
            answer = await asyncio.wait_for(future, deadline_s)
        except TimeoutError:
            return "timed out"
        except BrokenPipeError:
            return "no worker"
        finally:
            del self._waiting[number]
        return f"STATUS {answer.status}" if isinstance(answer, WorkerAnswer) and answer.status else answer

    def _receive(self) -> None:
        data = os.read(self._answers, _READ_BYTES)
        for number, *fields in _ANSWER.iter_unpack(data):
            future = self._waiting.get(number)
            if future is not None and not future.done():  # otherwise it timed out
                future.set_result(WorkerAnswer(*fields))
        if not data:  # all workers have ended
            self._loop.remove_reader(self._answers)
            for future in self._waiting.values():
                if not future.done():
                    future.set_result("no worker")


def live(queue: int, answers: int, *, workers: int) -> None:
    """Run a pool's processes: read the work from standard input, then answer batches until the queue has no writer."""
    work: Work = pickle.load(sys.stdin.buffer)
    children: list[int] = []
    number = 0
    for follower in range(1, workers):
        child = os.fork()  # before any library has started threads
        if child == 0:
            children, number = [], follower
            break
        children.append(child)
    if work.pinned:
        keep_to_cores(number, threads=work.threads)
    try:
        _work(work, queue, answers)
    except BrokenPipeError:
        pass  # the client is gone
    finally:
        os.close(queue)
        os.close(answers)
    sys.exit(max([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], default=0))


def _work(work: Work, queue: int, answers: int) -> None:
    from slipway.steps.engine_openvino import Engine  # not at the top: the client does without
    from slipway.steps.guard import PLACEHOLDER
    from slipway.steps.postprocess import Postprocessor, public_tensors
    from slipway.steps.preprocess import Preprocessor

    preprocessor = Preprocessor(work.preprocess, max_batch_size=work.max_batch, threads=work.threads)
    engine = Engine(work.graph, arithmetic=work.arithmetic, threads=work.threads)
    postprocessor = Postprocessor(work.decision, work.labels)

    def answer(images: Sequence[bytes]) -> tuple[Mapping[str, Any], list[float]]:
        times_s = [time.perf_counter()]
        pixels_nhwc_u8, status_n = preprocessor.run(images)
        times_s.append(time.perf_counter())
        logits_nc, embedding_nd = engine.run(pixels_nhwc_u8)
        times_s.append(time.perf_counter())
        found = postprocessor.run(logits_nc, status_n, embedding_nd)
        tensors = public_tensors(found, bundle=b"", embedding_nd=embedding_nd)
        times_s.append(time.perf_counter())
        return tensors, [1000 * (later - earlier) for earlier, later in itertools.pairwise(times_s)]

    for size in (1, work.max_batch) * 2:
        answer([PLACEHOLDER] * size)
    os.write(answers, _ANSWER.pack(_READY, 0, 0, 0.0, 0.0, 0.0, 0.0))
    while data := os.read(queue, work.max_batch * _REQUEST.size):
        asked = list(_REQUEST.iter_unpack(data))
        tensors, steps_ms = answer([work.images[image] for _, image in asked])
        rows = zip(asked, tensors["STATUS"], tensors["CLASS_ID"], tensors["SCORE"], strict=True)
        packed = (_ANSWER.pack(n, status[0], ids[0], scores[0], *steps_ms) for (n, _), status, ids, scores in rows)
        os.write(answers, b"".join(packed))
