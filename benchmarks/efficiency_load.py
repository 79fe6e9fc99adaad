"""What efficiency.py offers the sides, and how it judges them: the same arrivals, the same grid of rates, in turns."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from efficiency_sides import DEADLINE_S, POOL, SETTLE_S, Parts, Side
from tqdm import tqdm

from slipway.benchmark.figures import rates_per_s
from slipway.benchmark.load import Block, offer, poisson_schedule, precise_loop
from slipway.benchmark.result import Latency
from slipway.benchmark.statistics import MIN_ACHIEVED_SHARE, PERCENTILE, histogram_of, judge_generator
from slipway.benchmark.tuning_climb import NONE, climb, climb_rounds, in_turns, rate_at, ratio, rung_at
from slipway.contract import GateError

STRIDE = 4
"""Of the pilot, which only says where the rounds begin."""
CHUNK_IMAGES = 20
Rungs = dict[str, list[int]]
"""What each side held, round by round."""


@dataclass(frozen=True)
class Effort:
    """How much is asked."""

    rounds: int
    requests: int
    """Of a block, and a tenth more to warm up."""
    chunks: int
    """Of 20 images asked one by one."""
    start_per_s: float
    """Where the pilot begins."""
    limit_ms: float
    """On P99."""
    seed: int


def capacities(sides: Mapping[str, Side], *, images: int, effort: Effort) -> tuple[Rungs, list[dict[str, Any]]]:
    """The highest rung that each side holds in every round, and all blocks that were measured.

    Raises:
        GateError: a side holds not even the lowest rate.
    """
    blocks: list[dict[str, Any]] = []
    rungs: Rungs = {side: [] for side in sides}
    with tqdm(desc="climbing", unit=" blocks", leave=False, disable=None) as bar:

        def held(number: int, side: str, rung: int) -> bool:
            blocks.append({"side": side, "round": number, **measure(sides[side], rung, images, number, effort)})
            bar.update()
            return bool(blocks[-1]["held"])

        start = rung_at(effort.start_per_s)
        pilot = in_turns({side: climb(start, stride=STRIDE) for side in sides}, partial(held, 0))
        for number, ends in enumerate(climb_rounds(pilot, held, rounds=effort.rounds), start=1):
            if over := [side for side in sides if ends[side] == NONE]:
                rate = f"{rate_at(0):g} requests/s"
                raise GateError(f"{', '.join(over)}: P99 over {effort.limit_ms:g} ms at {rate} too; end what else runs")
            for side in sides:
                rungs[side].append(ends[side])
            bar.write(f"round {number}: " + ", ".join(f"{side} {rate_at(ends[side]):.0f}/s" for side in sides))
    return rungs, blocks


def measure(side: Side, rung: int, images: int, number: int, effort: Effort) -> dict[str, Any]:
    """One block. Its arrivals and images are those that every side meets at this rung in this round."""
    rng = np.random.default_rng([effort.seed, number, rung])
    warm_up = effort.requests // 10
    schedule_s = poisson_schedule(effort.requests + warm_up, rate_per_s=rate_at(rung), rng=rng)
    order = rng.integers(images, size=schedule_s.size).tolist()

    async def offered() -> Block:
        async with side.connect() as connection:
            await connection.ask(0, deadline_s=SETTLE_S)  # what was asked before is done
            return await offer(
                schedule_s,
                lambda index: connection.ask(order[index], deadline_s=DEADLINE_S),
                warm_up=warm_up,
                deadline_ms=1000 * DEADLINE_S,
            )

    started_s, cpu_s = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        block = runner.run(offered())
    client_cpu_cores = (time.process_time() - cpu_s) / (time.perf_counter() - started_s)
    return {
        "rate_per_s": rate_at(rung),
        **judged(block, limit_ms=effort.limit_ms),
        "client_cpu_cores": client_cpu_cores,
    }


def judged(block: Block, *, limit_ms: float) -> dict[str, Any]:
    """Held: at most one request in a hundred over the limit, 99 % of the rate achieved, the client on time."""
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
        "latency": Latency.of(histogram).model_dump(),
        "histogram": histogram.encode().decode(),
    }


def shares(rungs: Rungs) -> dict[str, dict[str, float]]:
    """Each layout's capacity as a share of the pool's, of the rounds together and with their spread."""
    found = {side: ratio(of_side, to=rungs[POOL]) for side, of_side in rungs.items() if side != POOL}
    return {side: {"mean": r.mean, "least": r.least, "most": r.most} for side, r in found.items()}


def one_by_one(sides: Mapping[str, Side], *, images: int, chunks: int) -> dict[str, Parts]:
    """Where an image's time goes when nobody else asks: medians over chunks, in which the sides take turns.

    `rest` is what the client sees over the parts: transport, scheduling, and what no step accounts for.
    """
    seen: dict[str, list[Parts]] = {side: [] for side in sides}
    for number in tqdm(range(chunks), desc="one by one", leave=False, disable=None):
        asked = [(number * CHUNK_IMAGES + index) % images for index in range(CHUNK_IMAGES)]
        for name, side in sides.items():
            parts = asyncio.run(side.parts(asked))
            parts["rest"] = parts["client"] - sum(ms for part, ms in parts.items() if part != "client")
            seen[name].append(parts)
    return {side: medians(rows) for side, rows in seen.items()}


def medians(rows: Sequence[Parts]) -> Parts:
    return {part: float(np.median([row[part] for row in rows])) for part in rows[0]}
