"""Generates open-loop Poisson load: requests leave on schedule, whether or not the server keeps up.

A closed loop waits for an answer before it asks again, so a stall of two seconds shows as one slow request. Here every
request that the stall delayed counts it, because each is timed from the moment it was due.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
Milliseconds = npt.NDArray[np.float64]
Ask = Callable[[int], Awaitable[str | None]]
"""Sends request `i` and waits for the answer; returns None for a right answer, otherwise the reason."""


@dataclass(frozen=True)
class Arrivals:
    """Events in time: the number after the first, and the time they took."""

    count: int
    span_s: float

    @classmethod
    def at(cls, times_s: Seconds) -> "Arrivals":
        return cls(max(0, times_s.size - 1), float(np.ptp(times_s)) if times_s.size else 0.0)


@dataclass(frozen=True)
class Sent:
    """The outcome of every request of a schedule, in order; times are in seconds from the schedule's start."""

    sent_s: Seconds
    done_s: Seconds
    outcomes: list[str | None]
    """The reason why each request had no right answer; None where it had one."""

    @classmethod
    def nothing(cls, requests: int) -> "Sent":
        return cls(np.empty(requests), np.empty(requests), [None] * requests)


@dataclass(frozen=True)
class Block:
    """The outcome of the counted requests of one schedule, in the order in which they were due."""

    latencies_ms: Milliseconds
    """Time from the scheduled send to the answer; a request without a right answer counts as the client's deadline."""
    schedule_errors_ms: Milliseconds
    """Actual minus scheduled send time: the generator's own lateness, which is part of the latency."""
    right: npt.NDArray[np.bool_]
    """Whether each request had a right answer."""
    failures: Mapping[str, int]
    """Number of requests without a right answer, by reason."""
    due: Arrivals
    answered: Arrivals
    """The arrivals of the right answers."""
    warm_up_s: float
    """Duration of the warm-up requests before the counted ones."""


def poisson_schedule(requests: int, *, rate_per_s: float, rng: np.random.Generator) -> Seconds:
    """Draw the due time of each request in seconds from the start: independent exponential gaps of mean 1 / rate."""
    return np.cumsum(rng.exponential(1 / rate_per_s, requests))


async def offer(schedule_s: Seconds, ask: Ask, *, warm_up: int, deadline_ms: float) -> Block:
    """Send one request at each time of the schedule, wait for every answer, and count all but the first `warm_up`.

    `ask` must end by its own deadline, which bounds the duration of this call.
    """
    start_s = asyncio.get_running_loop().time()
    sent = await send(schedule_s, ask, start_s=start_s)
    return counted(schedule_s, sent, warm_up=warm_up, deadline_ms=deadline_ms)


async def send(
    schedule_s: Seconds, ask: Ask, *, start_s: float, on_answer: Callable[[], object] = lambda: None
) -> Sent:
    """Send one request at each time of the schedule, its zero at `start_s` of CLOCK_MONOTONIC; wait for all answers."""
    loop = asyncio.get_running_loop()
    sent = Sent.nothing(schedule_s.size)

    async def request(index: int) -> None:
        sent.sent_s[index] = loop.time() - start_s
        sent.outcomes[index] = await ask(index)
        sent.done_s[index] = loop.time() - start_s
        on_answer()

    async with asyncio.TaskGroup() as requests:
        for index, due_s in enumerate(schedule_s.tolist()):
            # Sleeping even when late lets the requests that are already due leave.
            await asyncio.sleep(max(0.0, start_s + due_s - loop.time()))
            requests.create_task(request(index))
    return sent


def counted(schedule_s: Seconds, sent: Sent, *, warm_up: int, deadline_ms: float) -> Block:
    """Return the block without its first `warm_up` requests."""
    due_s, sent_s, done_s = schedule_s[warm_up:], sent.sent_s[warm_up:], sent.done_s[warm_up:]
    outcomes = sent.outcomes[warm_up:]
    failed = np.array([outcome is not None for outcome in outcomes], dtype=bool)
    latencies_ms = (done_s - due_s) * 1000.0
    return Block(
        # A quick rejection must not look like a quick answer.
        latencies_ms=np.where(failed, np.maximum(latencies_ms, deadline_ms), latencies_ms),
        schedule_errors_ms=(sent_s - due_s) * 1000.0,
        right=~failed,
        failures=Counter(outcome for outcome in outcomes if outcome is not None),
        due=Arrivals.at(due_s),
        answered=Arrivals.at(done_s[~failed]),
        warm_up_s=float(sent.done_s[:warm_up].max(initial=0.0)),
    )


def rate_per_s(arrivals: Iterable[Arrivals]) -> float:
    """Return the rate of several blocks together: all events divided by their total time."""
    count, span_s = (sum(values) for values in zip(*((a.count, a.span_s) for a in arrivals), strict=True))
    return count / span_s if span_s else 0.0


def precise_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that wakes up on time. The default one rounds every wait up to a whole millisecond (epoll)."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
