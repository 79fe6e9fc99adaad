"""The highest rate that each of several sides holds: the same arrivals and the same grid of rates, in turns."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from statistics import mean
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from benchmarks.studies.effort import Effort
from benchmarks.studies.scale.queue import steady_tail
from slipway.benchmark.figures import rates_per_s
from slipway.benchmark.load import Block, offer, poisson_schedule, precise_loop
from slipway.benchmark.statistics import MIN_ACHIEVED_SHARE, PERCENTILE, histogram_of, judge_generator, latency_of
from slipway.benchmark.tuning import climb, climb_rounds, in_turns, ratio, rung_at
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.studies import ClimbBlock, Failures, Ratio, Share, Stage, Tail
from slipway.contract.typed_file import Evidence

DEADLINE_S = 1.0
SETTLE_S = 60.0
"""Seconds to wait for the answer to a request that is queued behind all earlier ones."""
STRIDE = 4
"""Rungs between two rates of a pilot, which only finds where the rounds begin."""
BUSY, TAIL = 0.7, 1.8
"""Share of the rate that a side holds, at which its tail is measured, and the ratio P99/P50 aimed at there."""
Rungs = dict[str, list[int]]
"""Highest rung that each side held, round by round."""


class Asking(Protocol):
    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        """Ask for one image. Returns None for a right answer, else the reason why it is not right."""
        ...


Connect = Callable[[], AbstractAsyncContextManager[Asking]]


@dataclass
class Bench:
    """Measures sides that are all running throughout; `blocks` has every measured block, in order."""

    images: int
    """Number of images to ask for."""
    effort: Effort
    blocks: list[ClimbBlock] = field(default_factory=list)

    def best(self, candidates: Mapping[str, Connect]) -> tuple[str, int]:
        """Return the candidate that holds the highest rate, and its rung; of equal candidates the first."""
        pilot = in_turns(
            {name: climb(rung_at(self.effort.start_per_s), stride=STRIDE) for name in candidates},
            partial(self._held, candidates, "pilot", 0),
        )
        ends = list(climb_rounds(pilot, partial(self._held, candidates, "search"), rounds=self.effort.search_rounds))
        total = {name: sum(end[name] for end in ends) for name in candidates}
        chosen = max(total, key=lambda name: total[name])
        return chosen, total[chosen] // self.effort.search_rounds

    def rounds(self, sides: Mapping[str, Connect], starts: Mapping[str, int]) -> Rungs:
        """Find the highest rung that each side holds in every round; NONE if it does not hold the lowest rate either.

        A round that is not counted comes first: `starts` may be some minutes old, and a side that begins far below what
        it holds now would climb alone.
        """
        (starts,) = climb_rounds(starts, partial(self._held, sides, "pilot"), rounds=1)
        rungs: Rungs = {side: [] for side in sides}
        held = partial(self._held, sides, "round")
        for number, ends in enumerate(climb_rounds(starts, held, rounds=self.effort.rounds), start=1):
            for side in sides:
                rungs[side].append(ends[side])
            tqdm.write(f"round {number}: " + ", ".join(f"{side} {rate_at(ends[side]):.0f}/s" for side in sides))
        return rungs

    def tails(self, sides: Mapping[str, Connect], rungs: Rungs) -> dict[str, Tail]:
        """Measure the tail of each side at `BUSY` of the rate that it held, in turns, with a block for each round."""
        rates = {side: BUSY * rate_at(round(mean(rungs[side]))) for side in sides}
        blocks: dict[str, list[Block]] = {side: [] for side in sides}
        for number in range(self.effort.rounds):
            once = replace(self.effort, rounds=1, seed=self.effort.seed + number)
            for side, connect in sides.items():
                blocks[side] += blocks_in_turns({side: connect}, rates[side], self.images, once)[side]
        return {side: tail_of(of_side, rates[side]) for side, of_side in blocks.items()}

    def _held(self, sides: Mapping[str, Connect], stage: Stage, number: int, side: str, rung: int) -> bool:
        """Measure one block. Its arrivals and images are those that every side meets at this rung in this round."""
        requests = self.effort.requests // (1 if stage == "round" else 2)
        rng = np.random.default_rng([self.effort.seed, stage == "round", number, rung])
        warm_up = requests // 10
        schedule_s = poisson_schedule(requests + warm_up, rate_per_s=rate_at(rung), rng=rng)
        order = rng.integers(self.images, size=schedule_s.size).tolist()
        measured, client_cpu_cores = offered(sides[side], schedule_s, order, warm_up=warm_up)
        block = judged(
            measured,
            limit_ms=self.effort.limit_ms,
            side=side,
            stage=stage,
            number=number,
            rate_per_s=rate_at(rung),
            client_cpu_cores=client_cpu_cores,
        )
        self.blocks.append(block)
        tqdm.write(
            f"  {side:24} {rate_at(rung):6.1f}/s  P99 {block.latency.p99_ms:7.1f} ms  "
            f"client late {block.generator_late_p99_ms:4.1f} ms at P99  {'held' if block.held else 'over'}"
        )
        return block.held


def share(rungs: Rungs, side: str, *, of: str) -> Share:
    """Return the rate that a side holds relative to that of another, over the rounds."""
    return Share(**ratio(rungs[side], to=rungs[of]).fields())


def offered(connect: Connect, schedule_s: Any, order: list[int], *, warm_up: int) -> tuple[Block, float]:
    """Send a schedule; returns its outcome, and the cores that sending it took."""

    async def send() -> Block:
        async with connect() as connection:
            await connection.ask(0, deadline_s=SETTLE_S)  # earlier requests are done
            return await offer(
                schedule_s,
                lambda index: connection.ask(order[index], deadline_s=DEADLINE_S),
                warm_up=warm_up,
                deadline_ms=1000 * DEADLINE_S,
            )

    started_s, cpu_s = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        block = runner.run(send())
    return block, (time.process_time() - cpu_s) / (time.perf_counter() - started_s)


def blocks_in_turns(
    sides: Mapping[str, Connect],
    rate_per_s: float,
    images: int,
    effort: Effort,
    *,
    fewer: Mapping[str, int] = MappingProxyType({}),
    around: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> dict[str, list[Block]]:
    """Measure blocks of each side at one rate, with the same arrivals for all in a round. The sides take turns in being
    first.

    Args:
        fewer: requests of a side that gets only the first of the arrivals. All have the warm-up of the one with fewest.
        around: entered for each block with the name of the side.
    """
    blocks: dict[str, list[Block]] = {side: [] for side in sides}
    requests = {side: fewer.get(side, effort.requests) for side in sides}
    warm_up = min(requests.values()) // 10
    for number in tqdm(range(effort.rounds), "rounds", disable=None):
        rng = np.random.default_rng([effort.seed, number])
        schedule_s = poisson_schedule(max(requests.values()) + warm_up, rate_per_s=rate_per_s, rng=rng)
        order = rng.integers(images, size=schedule_s.size).tolist()
        names = list(sides)
        for side in names[number % len(names) :] + names[: number % len(names)]:
            with around(side):
                block, _ = offered(sides[side], schedule_s[: requests[side] + warm_up], order, warm_up=warm_up)
            blocks[side].append(block)
    return blocks


class P99(Evidence):
    """P99 of each side, of all its blocks and of each."""

    p99_ms: dict[str, float]
    p99_ms_by_round: dict[str, tuple[float, ...]]
    failed: Failures

    @classmethod
    def of(cls, blocks: Mapping[str, Sequence[Block]]) -> "P99":
        failed: Counter[str] = Counter()
        for block in chain(*blocks.values()):
            failed.update(block.failures)
        by_round = {side: tuple(percentile_ms([block], 99) for block in its) for side, its in blocks.items()}
        whole = {side: percentile_ms(its, 99) for side, its in blocks.items()}
        return cls(p99_ms=whole, p99_ms_by_round=by_round, failed=failed)

    def ratio(self, side: str, *, to: str) -> Ratio:
        by_round = zip(self.p99_ms_by_round[side], self.p99_ms_by_round[to], strict=True)
        return Ratio(of_all=self.p99_ms[side] / self.p99_ms[to], by_round=tuple(a / b for a, b in by_round))


def tail_of(blocks: Sequence[Block], rate_per_s: float) -> Tail:
    p50_ms, p99_ms = (percentile_ms(blocks, percent) for percent in (50, 99))
    return Tail(rate_per_s=rate_per_s, p50_ms=p50_ms, p99_ms=p99_ms, ratio=p99_ms / p50_ms)


def tail_line(tail: Tail, processes: int) -> str:
    """Describe the tail beside that of a simulated queue with as many processes, as busy, and constant service
    times."""
    least = steady_tail(processes, busy=BUSY)
    return (
        f"at {tail.rate_per_s:.0f}/s, {BUSY:.0%} of that: P50 {tail.p50_ms:.1f}, P99 {tail.p99_ms:.1f} ms, ratio "
        f"{tail.ratio:.2f} (target {TAIL:g}; a queue of constant times, {BUSY:.0%} busy: {least:.2f})"
    )


def percentile_ms(blocks: Sequence[Block], percent: float, *, first: int | None = None) -> float:
    """Return a percentile over the requests of some blocks, or over the `first` ones of each."""
    return float(np.percentile(np.concatenate([block.latencies_ms[:first] for block in blocks]), percent))


def judged(
    block: Block, *, limit_ms: float, side: str, stage: Stage, number: int, rate_per_s: float, client_cpu_cores: float
) -> ClimbBlock:
    """Judge a block. A rate is held if at most one request in a hundred is over the limit, 99 % of the rate is
    achieved, and the client is on time."""
    histogram = histogram_of(block.latencies_ms)
    offered_per_s, achieved_per_s = rates_per_s([block], limit_ms=limit_ms)
    over_limit = int((block.latencies_ms > limit_ms).sum())
    late = judge_generator(block.schedule_errors_ms, limit_ms=limit_ms) is not None
    within = over_limit <= (1 - PERCENTILE) * block.latencies_ms.size
    return ClimbBlock(
        side=side,
        stage=stage,
        round=number,
        rate_per_s=rate_per_s,
        held=within and achieved_per_s >= MIN_ACHIEVED_SHARE * offered_per_s and not late,
        offered_per_s=offered_per_s,
        achieved_per_s=achieved_per_s,
        requests=block.latencies_ms.size,
        over_limit=over_limit,
        failures=dict(block.failures),
        generator_late=late,
        generator_late_p99_ms=float(np.quantile(block.schedule_errors_ms, PERCENTILE)),
        latency=latency_of(histogram),
        histogram=histogram.encode().decode(),
        client_cpu_cores=client_cpu_cores,
    )
