"""Offers load, and observes the answers."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.studies.robustness.launcher import Launcher
from slipway.benchmark.load import Block, Seconds, offer, poisson_schedule, precise_loop
from slipway.benchmark.server import TritonConnection
from slipway.contract import ServingError

LIMIT_MS = 50.0


@dataclass
class Load:
    """Observations of one load run. Times are those of `time.monotonic()`."""

    block: Block = field(init=False)
    due_s: Seconds = field(init=False)
    """Time at which each request of the block was due."""
    client_cpu_cores: float = field(init=False)
    good: list[tuple[float, float]] = field(default_factory=list)
    """Time at which each rightly answered request was sent, and that of its answer; includes the warm-up."""
    bad: list[tuple[float, float]] = field(default_factory=list)
    """The two times of every other request."""
    bundles: list[str] = field(default_factory=list)
    mixed: int = 0

    @property
    def longest_wait_s(self) -> float:
        return max(done - sent for sent, done in [*self.good, *self.bad])

    @property
    def last_sent_s(self) -> float:
        return max(sent for sent, _ in [*self.good, *self.bad])


def run_load(
    launcher: Launcher,
    model: str,
    images: Sequence[bytes],
    per_s: float,
    seconds: float,
    *,
    seed: int,
    deadline_ms: float = 5000.0,
    warm_up_s: float = 1.0,
) -> Load:
    """Send Poisson arrivals of one image each; those of the warm-up are not in the block.

    Raises ServingError: the rate is so low that no request is counted, and no percentile can be taken.
    """
    count, warm_up = int(per_s * (seconds + warm_up_s)), int(per_s * warm_up_s)
    if count <= warm_up:
        raise ServingError(f"{per_s:.3g} requests/s for {seconds:g} s are none: the server is too slow to be measured")
    load = Load()
    rng = np.random.default_rng(seed)
    order = rng.integers(len(images), size=count)

    async def offered() -> Block:
        async with TritonConnection(launcher.grpc_url, model=model, images=images) as server:
            scores: dict[tuple[int, str], tuple[bytes, float]] = {}

            async def ask(index: int) -> str | None:
                sent, image = time.monotonic(), int(order[index])
                answer = await server.answer(image, deadline_s=deadline_ms / 1000)
                done = time.monotonic()
                if isinstance(answer, str):
                    load.bad.append((sent, done))
                    return answer
                load.good.append((sent, done))
                bundle = answer.bundle.decode()
                load.bundles.append(bundle)
                # The same image from the same bundle has the same answer, whatever else was being loaded.
                said = (answer.label, round(answer.score, 4))
                load.mixed += scores.setdefault((image, bundle), said) != said
                return None

            schedule_s = poisson_schedule(count, rate_per_s=per_s, rng=rng)
            load.due_s = time.monotonic() + schedule_s[warm_up:]
            return await offer(schedule_s, ask, warm_up=warm_up, deadline_ms=deadline_ms)

    started, cpu = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        load.block = runner.run(offered())
    load.client_cpu_cores = (time.process_time() - cpu) / (time.perf_counter() - started)
    return load


async def saturation(url: str, model: str, images: Sequence[bytes], *, clients: int = 16, seconds: float = 8) -> float:
    """Measure the right answers a second of a closed loop that keeps every queue filled."""
    answered = 0
    async with TritonConnection(url, model=model, images=images) as server:
        over = time.monotonic() + seconds

        async def client(offset: int) -> None:
            nonlocal answered
            index = offset
            while time.monotonic() < over:
                right = await server.ask(index % len(images), deadline_s=5) is None
                answered += right
                index += clients

        await asyncio.gather(*(client(offset) for offset in range(clients)))
    return answered / seconds


def seconds_to_normal(load: Load, *, since_s: float) -> float | None:
    """Return the seconds until the first request of an easy load from which on every answer is right and within the
    limit; None if some answer at the end is not.

    This is an upper bound, since no request is sent between `since_s` and the load's first one.
    """
    over = np.flatnonzero(load.block.latencies_ms > LIMIT_MS)  # a request without a right answer is over every limit
    normal_s = load.due_s[over[-1] + 1 :] if over.size else load.due_s
    return float(normal_s[0] - since_s) if normal_s.size else None
