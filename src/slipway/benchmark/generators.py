"""Runs the load generators: processes that share one schedule, each with its own event loop and connection.

One Python process sends only a few hundred requests per second on time. Several processes are dealt the schedule in
turn and count its times from one moment of a shared clock, so that together they form one Poisson process.
"""

import asyncio
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Self

from slipway.benchmark.load import Seconds, Sent, precise_loop, send
from slipway.benchmark.processes import go_first
from slipway.benchmark.server import TritonConnection
from slipway.errors import GateError, SlipwayError

RATE_PER_GENERATOR = 200.0
"""Requests per second that keep one generator at most a quarter busy: each costs 0.4 to 1.3 ms of a core."""
LEAD_S = 0.1
"""Seconds from dealing a schedule to its start, by which every generator has its share."""
_REPORT_EVERY_S = 0.5
_PATIENCE_S = 60.0
"""Seconds of silence, beyond the longest request, after which a generator counts as hung."""


@dataclass(frozen=True)
class LoadTarget:
    """The server, the model and the images of the generators' requests."""

    url: str
    model: str
    images: Sequence[bytes]


@dataclass(frozen=True)
class Ready:
    """Message of a generator that is connected."""

    goes_first: bool
    """Whether the generator has priority over everything else on its cores."""


@dataclass(frozen=True)
class ScheduleShare:
    """One generator's part of a schedule: the due time after `start_s` and the image of each of its requests."""

    schedule_s: Seconds
    order: Sequence[int]
    start_s: float
    deadline_s: float


@dataclass(frozen=True)
class LoadOutcome:
    """The outcome of a schedule, and the CPU time of sending it."""

    sent: Sent
    cpu_s: float


def choose_generators(rate_per_s: float, *, cores: int, shares_cores: bool) -> tuple[int, str]:
    """Return the number of generators that a rate needs on a client with `cores` cores, and the reason.

    Where the server runs on the same cores, it keeps three quarters of them.
    """
    needed = math.ceil(rate_per_s / RATE_PER_GENERATOR)
    most = max(1, cores // 4) if shares_cores else cores
    bound = f"a quarter of the {cores} cores" if shares_cores else f"one on each of {cores} cores"
    return min(needed, most), f"one for each {RATE_PER_GENERATOR:g} requests/s, at most {most}: {bound}"


class Generators:
    """`count` generator processes, connected to the server. Use as a context manager: they end with the block.

    Raises:
        ServingError: no server answers, or it does not serve the model.
        GateError: a generator ended or hung.
    """

    def __init__(self, count: int, target: LoadTarget) -> None:
        self.count = count
        self.go_first = False
        """Whether all of them have priority on their cores, for instance over the server; known once they run."""
        self._target = target
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self.count):
                self._start()
            for pipe in self._pipes:
                with suppress(OSError):  # a generator that ended is detected by its missing reply
                    pipe.send(self._target)
            ready: list[Ready] = self._replies(lambda _: None, patience_s=_PATIENCE_S)
            self.go_first = all(generator.goes_first for generator in ready)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def offer(
        self, schedule_s: Seconds, order: Sequence[int], *, deadline_s: float, on_answers: Callable[[int], object]
    ) -> LoadOutcome:
        """Send image `order[i]` when request `i` is due, wait for every answer, and return all in the schedule's order.

        `on_answers` is called now and then with the number of new answers.
        """
        start_s = time.monotonic() + LEAD_S
        for number, pipe in enumerate(self._pipes):
            mine = slice(number, None, self.count)
            with suppress(OSError):
                pipe.send(ScheduleShare(schedule_s[mine], order[mine], start_s=start_s, deadline_s=deadline_s))
        longest_s = float(schedule_s[-1]) + deadline_s + _PATIENCE_S
        shares: list[LoadOutcome] = self._replies(on_answers, patience_s=longest_s)
        together = Sent.nothing(schedule_s.size)
        for number, share in enumerate(shares):
            mine = slice(number, None, self.count)
            together.sent_s[mine], together.done_s[mine] = share.sent.sent_s, share.sent.done_s
            together.outcomes[mine] = share.sent.outcomes
        return LoadOutcome(together, cpu_s=sum(share.cpu_s for share in shares))

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._pipes.append(ours)
        life = f"from slipway.benchmark.generators import work; work({theirs.fileno()})"
        # In its own session Ctrl-C does not reach it: its parent ends it.
        command = [sys.executable, "-P", "-c", life]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        self._processes.append(process)
        theirs.close()

    def _replies(self, on_answers: Callable[[int], object], *, patience_s: float) -> list[Any]:
        """Collect one reply of every generator. An int is only a number of new answers."""
        replies: dict[Any, Any] = {}
        while waiting := [pipe for pipe in self._pipes if pipe not in replies]:
            ready = wait(waiting, timeout=patience_s)
            if not ready:
                raise GateError(f"{self._name(waiting[0])} was silent for {patience_s:.0f} s; nothing was measured")
            for pipe in ready:
                message = self._received(pipe)
                if isinstance(message, int):
                    on_answers(message)
                else:
                    replies[pipe] = message
        return [replies[pipe] for pipe in self._pipes]

    def _received(self, pipe: Any) -> Any:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            code = self._processes[self._pipes.index(pipe)].wait()
            raise GateError(f"{self._name(pipe)} ended with exit code {code}; nothing was measured") from None
        if isinstance(message, SlipwayError):
            raise message
        return message

    def _name(self, pipe: Connection) -> str:
        number = self._pipes.index(pipe)
        return f"load generator {number + 1} of {self.count} (pid {self._processes[number].pid})"

    def _end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        for pipe in self._pipes:
            pipe.close()


def work(pipe_fd: int) -> None:
    """Run a generator: receive a target, then send one share after the other until the parent ends."""
    gone = suppress(EOFError, OSError)
    with Connection(pipe_fd) as pipe, gone, asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(_work(pipe))


async def _work(pipe: Connection) -> None:
    target: LoadTarget = pipe.recv()
    try:
        async with TritonConnection(target.url, model=target.model, images=target.images) as server:
            await server.check_ready()  # connects, so that the first request does not have to
            pipe.send(Ready(go_first()))
            while True:
                share: ScheduleShare = pipe.recv()
                cpu_s = time.process_time()
                sent = await _send(share, server, pipe)
                pipe.send(LoadOutcome(sent, cpu_s=time.process_time() - cpu_s))
    except SlipwayError as error:
        pipe.send(error)


async def _send(share: ScheduleShare, server: TritonConnection, pipe: Connection) -> Sent:
    answers, reported_s = 0, time.monotonic()

    def on_answer() -> None:
        nonlocal answers, reported_s
        answers += 1
        if time.monotonic() - reported_s > _REPORT_EVERY_S:
            try:
                pipe.send(answers)
            except OSError:
                os._exit(1)  # the parent has ended, so nobody waits for the rest
            answers, reported_s = 0, time.monotonic()

    def ask(index: int) -> Any:
        return server.ask(share.order[index], deadline_s=share.deadline_s)

    sent = await send(share.schedule_s, ask, start_s=share.start_s, on_answer=on_answer)
    pipe.send(answers)
    return sent
