"""The latency gate: offer a load, time every request, judge P99."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from slipway.benchmark import processes
from slipway.benchmark.load import Block, offer, poisson_schedule, precise_loop, rate_per_s
from slipway.benchmark.result import (
    MIN_DISTINCT_IMAGES,
    BlockResult,
    GateOptions,
    GateResult,
    Generator,
    Latency,
    Machine,
    ServerUse,
    StepTime,
    WarmUp,
)
from slipway.benchmark.server import Server, StepCounters, on_this_host
from slipway.benchmark.statistics import HdrHistogram, histogram_of, judge_block, judge_run, merged
from slipway.contract.errors import DataError
from slipway.contract.files import files_below
from slipway.contract.manifest import commit, versions

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_IMAGES = 1024
"""Held in memory, ready to send; of a larger folder, a seeded draw."""
_LIBRARIES = ("grpcio", "hdrhistogram", "psutil", "tritonclient")


@dataclass(frozen=True)
class Measurement:
    """What was seen from the first request to the last, before it is judged."""

    bundle: str
    server: str
    first_answer_ms: float
    blocks: tuple[Block, ...]
    steps: tuple[StepTime, ...]
    server_use: ServerUse | None
    client_cpu_cores: float


def run_gate(options: GateOptions) -> GateResult:
    """Measure and judge one ensemble of a running tritonserver.

    Raises:
        DataError: no images.
        ServingError: no server, no such model, no first answer, or no such process.
    """
    images = load_images(options.images, seed=options.seed)
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        measurement = runner.run(_measure(options, images))
    return _judged(options, measurement, distinct_images=len(set(images)))


async def _measure(options: GateOptions, images: Sequence[bytes]) -> Measurement:
    pid = options.server_pid
    async with Server(options.url, model=options.model, images=images) as server:
        await server.check_ready()
        started_s = time.perf_counter()
        bundle = await server.first_answer()
        first_answer_ms = (time.perf_counter() - started_s) * 1000
        models = [options.model, *await server.steps()]
        before, watched = await server.counters(), processes.snapshot(pid) if pid else None
        started_s, client_cpu_s = time.perf_counter(), time.process_time()
        blocks = await _offer_blocks(options, server, distinct=len(images))
        client_cpu_cores = (time.process_time() - client_cpu_s) / (time.perf_counter() - started_s)
        after = await server.counters()
        return Measurement(
            bundle=bundle,
            server=await server.version(),
            first_answer_ms=first_answer_ms,
            blocks=blocks,
            steps=tuple(_step_time(name, before[name], after[name]) for name in models),
            server_use=_server_use(watched, processes.snapshot(pid)) if pid and watched else None,
            client_cpu_cores=client_cpu_cores,
        )


async def _offer_blocks(options: GateOptions, server: Server, *, distinct: int) -> tuple[Block, ...]:
    """One after the other; each starts with an empty queue and its own warm-up, so that they are independent."""
    requests = options.warm_up_requests + options.requests_per_block
    blocks = []
    with tqdm(total=options.blocks * requests, desc="gate", unit=" requests", mininterval=0.5, disable=None) as bar:
        for number in range(options.blocks):
            rng = np.random.default_rng([options.seed, number])
            schedule_s = poisson_schedule(requests, rate_per_s=options.rate_per_s, rng=rng)
            order = rng.integers(distinct, size=requests).tolist()

            def ask(index: int, order: list[int] = order) -> Awaitable[str | None]:
                return server.ask(order[index], deadline_s=options.deadline_ms / 1000)

            blocks.append(
                await offer(
                    schedule_s,
                    ask,
                    warm_up=options.warm_up_requests,
                    deadline_ms=options.deadline_ms,
                    on_answer=bar.update,
                )
            )
    return tuple(blocks)


def _judged(options: GateOptions, seen: Measurement, *, distinct_images: int) -> GateResult:
    offered_per_s = rate_per_s(block.due for block in seen.blocks)
    achieved_per_s = rate_per_s(block.answered for block in seen.blocks)
    judgement = judge_run(
        [block.latencies_ms for block in seen.blocks],
        limit_ms=options.limit_ms,
        offered_per_s=offered_per_s,
        achieved_per_s=achieved_per_s,
    )
    histograms = [histogram_of(block.latencies_ms) for block in seen.blocks]
    schedule_errors_ms = np.concatenate([block.schedule_errors_ms for block in seen.blocks])
    return GateResult(
        verdict=judgement.verdict,
        reason=judgement.reason,
        caveats=_caveats(distinct_images),
        options=options,
        bundle=seen.bundle,
        distinct_images=distinct_images,
        offered_per_s=offered_per_s,
        achieved_per_s=achieved_per_s,
        latency=Latency.of(merged(histograms)),
        failures=dict(sum((Counter(block.failures) for block in seen.blocks), Counter())),
        blocks=tuple(_block_result(b, h, options=options) for b, h in zip(seen.blocks, histograms, strict=True)),
        warm_up=WarmUp(
            first_answer_ms=seen.first_answer_ms,
            requests=options.warm_up_requests,
            duration_s=seen.blocks[0].warm_up_s,
        ),
        generator=Generator(
            schedule_error_p99_ms=float(np.quantile(schedule_errors_ms, 0.99)),
            schedule_error_max_ms=float(schedule_errors_ms.max()),
            cpu_cores=seen.client_cpu_cores,
            shares_cores_with_server=on_this_host(options.url),
        ),
        steps=seen.steps,
        server=seen.server,
        server_use=seen.server_use,
        machine=Machine.this(),
        versions=versions(_LIBRARIES),
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _block_result(block: Block, histogram: HdrHistogram, *, options: GateOptions) -> BlockResult:
    over_limit = int((block.latencies_ms > options.limit_ms).sum())
    judgement = judge_block(over_limit, requests=block.latencies_ms.size)
    return BlockResult(
        verdict=judgement.verdict,
        reason=judgement.reason,
        requests=block.latencies_ms.size,
        over_limit=over_limit,
        failures=dict(block.failures),
        latency=Latency.of(histogram),
        histogram=histogram.encode().decode(),
    )


def _caveats(distinct_images: int) -> tuple[str, ...]:
    if distinct_images >= MIN_DISTINCT_IMAGES:
        return ()
    return (f"{distinct_images} distinct images; a figure is published from {MIN_DISTINCT_IMAGES} on",)


def _step_time(model: str, before: StepCounters, after: StepCounters) -> StepTime:
    requests = after.requests - before.requests
    executions = after.executions - before.executions

    def per_request_us(earlier_ns: int, later_ns: int) -> float:
        return (later_ns - earlier_ns) / 1000 / requests if requests else 0.0

    return StepTime(
        model=model,
        requests=requests,
        images_per_execution=(after.images - before.images) / executions if executions else 0.0,
        total_us=per_request_us(before.total_ns, after.total_ns),
        **{f"{k}_us": per_request_us(ns, after.duration_ns[k]) for k, ns in before.duration_ns.items()},
    )


def _server_use(before: processes.Snapshot, after: processes.Snapshot) -> ServerUse:
    return ServerUse(
        processes=len(after.cpu_s),
        cpu_cores=processes.cores_used(before, after),
        peak_rss_mib=after.peak_rss_mib,
    )


def load_images(folder: Path, *, seed: int) -> list[bytes]:
    """Image files below `folder`, at most `MAX_IMAGES`, in a seeded order.

    Raises:
        DataError: there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with image files in it or below it")
    paths = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise DataError(f"{folder}: no image in it or below it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    chosen = np.random.default_rng(seed).permutation(len(paths))[:MAX_IMAGES]
    return [paths[index].read_bytes() for index in chosen.tolist()]
