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
from slipway.benchmark.tuning import climb, climb_rounds, in_turns, rung_at
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.studies import ClimbBlock, Tail

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

    def _held(self, sides: Mapping[str, Connect], stage: str, number: int, side: str, rung: int) -> bool:
        requests = self.effort.requests // (1 if stage == "round" else 2)
        found = self._measure(sides[side], rung, requests=requests, drawn=(stage == "round", number))
        block = ClimbBlock.parse({"side": side, "stage": stage, "round": number, **found}, source="the block")
        self.blocks.append(block)
        tqdm.write(
            f"  {side:24} {rate_at(rung):6.1f}/s  P99 {block.latency.p99_ms:7.1f} ms  "
            f"client late {block.generator_late_p99_ms:4.1f} ms at P99  {'held' if block.held else 'over'}"
        )
        return block.held

    def _measure(self, connect: Connect, rung: int, *, requests: int, drawn: tuple[int, int]) -> dict[str, Any]:
        """Measure one block. Every side meets the same arrivals and images at this rung in this round."""
        rng = np.random.default_rng([self.effort.seed, *map(int, drawn), rung])
        warm_up = requests // 10
        schedule_s = poisson_schedule(requests + warm_up, rate_per_s=rate_at(rung), rng=rng)
        order = rng.integers(self.images, size=schedule_s.size).tolist()
        block, client_cpu_cores = offered(connect, schedule_s, order, warm_up=warm_up)
        return {
            "rate_per_s": rate_at(rung),
            **judged(block, limit_ms=self.effort.limit_ms),
            "client_cpu_cores": client_cpu_cores,
        }


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


def p99_in_turns(
    sides: Mapping[str, Connect], rate_per_s: float, images: int, effort: Effort, *, to: str
) -> dict[str, Any]:
    """Measure P99 of each side at one rate, with the same arrivals for all in a round, and the ratios to the side
    `to`."""
    return p99_of(blocks_in_turns(sides, rate_per_s, images, effort), to=to)


def p99_of(blocks: Mapping[str, Sequence[Block]], *, to: str) -> dict[str, Any]:
    """Return P99 of each side over all its blocks and over each, and the ratios to the side `to`."""
    failed: Counter[str] = Counter()
    for block in chain(*blocks.values()):
        failed.update(block.failures)
    p99_ms = {side: [percentile_ms([block], 99) for block in its] for side, its in blocks.items()}
    whole = {side: percentile_ms(its, 99) for side, its in blocks.items()}
    ratios = {
        f"{side}_to_{to}": {
            "of_all": whole[side] / whole[to],
            "by_round": [a / b for a, b in zip(p99_ms[side], p99_ms[to], strict=True)],
        }
        for side in blocks
        if side != to
    }
    return {"p99_ms": whole, "p99_ms_by_round": p99_ms, "failed": dict(failed), **ratios}


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


def judged(block: Block, *, limit_ms: float) -> dict[str, Any]:
    """Judge a block. A rate is held if at most one request in a hundred is over the limit, 99 % of the rate is
    achieved, and the client is on time."""
    histogram = histogram_of(block.latencies_ms)
    offered_per_s, achieved_per_s = rates_per_s([block], limit_ms=limit_ms)
    over_limit = int((block.latencies_ms > limit_ms).sum())
    late = judge_generator(block.schedule_errors_ms, limit_ms=limit_ms) is not None
    within = over_limit <= (1 - PERCENTILE) * block.latencies_ms.size
    return {
        "held": within and achieved_per_s >= MIN_ACHIEVED_SHARE * offered_per_s and not late,
        "offered_per_s": offered_per_s,
        "achieved_per_s": achieved_per_s,
        "requests": block.latencies_ms.size,
        "over_limit": over_limit,
        "failures": dict(block.failures),
        "generator_late": late,
        "generator_late_p99_ms": float(np.quantile(block.schedule_errors_ms, PERCENTILE)),
        "latency": latency_of(histogram).model_dump(),
        "histogram": histogram.encode().decode(),
    }
