"""The latency gate: offer a load, time every request, judge P99."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from slipway.benchmark import processes
from slipway.benchmark.figures import Client, Seen, measured, server_use, step_time
from slipway.benchmark.generators import Generators, Target, choose_generators
from slipway.benchmark.load import Block, counted, poisson_schedule
from slipway.benchmark.result import MIN_DISTINCT_IMAGES, GateOptions, GateResult, Machine, Measured
from slipway.benchmark.server import Server, StepCounters, on_this_host
from slipway.contract.errors import DataError
from slipway.contract.files import files_below
from slipway.contract.manifest import commit, versions

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_IMAGES = 1024
"""Held in memory, ready to send; of a larger folder, a seeded draw."""
_LIBRARIES = ("grpcio", "hdrhistogram", "psutil", "tritonclient")


@dataclass(frozen=True)
class Subject:
    """An ensemble of a running server that has answered once, and the images to ask it with."""

    images: Sequence[bytes]
    bundle: str
    server: str
    models: tuple[str, ...]
    """The ensemble, then its steps in order."""
    first_answer_ms: float


def run_gate(options: GateOptions) -> GateResult:
    """Measure and judge one ensemble of a running tritonserver.

    Raises:
        DataError: no images.
        ServingError: no server, no such model, no first answer, or no such process.
        GateError: a load generator ended.
    """
    subject = asyncio.run(meet(options))
    found = measure(options, subject, rate_per_s=options.rate_per_s, blocks=options.blocks)
    return GateResult(**dict(found), **provenance(options, subject))


async def meet(options: GateOptions) -> Subject:
    """Load the images, find the ensemble and get its first answer. Raises as `run_gate` does."""
    images = load_images(options.images, seed=options.seed)
    async with Server(options.url, model=options.model, images=images[:1]) as server:
        await server.check_ready()
        started_s = time.perf_counter()
        bundle = await server.first_answer()
        first_answer_ms = (time.perf_counter() - started_s) * 1000
        models = (options.model, *await server.steps())
        return Subject(images, bundle, await server.version(), models, first_answer_ms)


def measure(
    options: GateOptions, subject: Subject, *, rate_per_s: float, blocks: int, first_block: int = 0
) -> Measured:
    """Offer `blocks` blocks of Poisson arrivals at a rate, and judge them. Block `i` is drawn from [seed, i]."""
    pid = options.server_pid
    shares_cores = on_this_host(options.url)
    count, reason = choose_generators(rate_per_s, cores=len(os.sched_getaffinity(0)), shares_cores=shares_cores)
    if options.generators:
        count, reason = options.generators, "as asked for"
    with Generators(count, Target(options.url, options.model, subject.images)) as generators:
        before = asyncio.run(_counters(options, subject, settle=True))
        watched = processes.snapshot(pid) if pid else None
        numbers = range(first_block, first_block + blocks)
        offered, cpu_cores = _offer_blocks(options, generators, subject, rate_per_s=rate_per_s, numbers=numbers)
        use = server_use(watched, processes.snapshot(pid)) if pid and watched else None
        after = asyncio.run(_counters(options, subject, settle=False))
    seen = Seen(
        blocks=offered,
        first_answer_ms=subject.first_answer_ms,
        client=Client(count, reason, cpu_cores=cpu_cores, shares_cores=shares_cores, go_first=generators.go_first),
        steps=tuple(step_time(name, before[name], after[name]) for name in subject.models),
        server_use=use,
    )
    return measured(seen, options)


def _offer_blocks(
    options: GateOptions, generators: Generators, subject: Subject, *, rate_per_s: float, numbers: range
) -> tuple[tuple[Block, ...], float]:
    """One after the other; each has its own warm-up, so that they are independent. Also the cores that sending took."""
    requests = options.warm_up_requests + options.requests_per_block
    blocks, cpu_s, started_s = [], 0.0, time.monotonic()
    with tqdm(
        total=len(numbers) * requests, desc=f"{rate_per_s:.1f}/s", unit=" requests", leave=False, disable=None
    ) as bar:
        for number in numbers:
            rng = np.random.default_rng([options.seed, number])
            schedule_s = poisson_schedule(requests, rate_per_s=rate_per_s, rng=rng)
            order = rng.integers(len(subject.images), size=requests).tolist()
            load = generators.offer(schedule_s, order, deadline_s=options.deadline_ms / 1000, on_answers=bar.update)
            blocks.append(
                counted(schedule_s, load.sent, warm_up=options.warm_up_requests, deadline_ms=options.deadline_ms)
            )
            cpu_s += load.cpu_s
    return tuple(blocks), cpu_s / (time.monotonic() - started_s)


async def _counters(options: GateOptions, subject: Subject, *, settle: bool) -> dict[str, StepCounters]:
    """The server's counters, at once or when nothing is queued any more."""
    async with Server(options.url, model=options.model, images=subject.images[:1]) as server:
        if settle:
            await server.settle()
        return await server.counters()


def provenance(options: GateOptions, subject: Subject) -> dict[str, Any]:
    """The fields of `Provenance`."""
    distinct_images = len(set(subject.images))
    few = f"{distinct_images} distinct images; a figure is published from {MIN_DISTINCT_IMAGES} on"
    return {
        "caveats": (few,) if distinct_images < MIN_DISTINCT_IMAGES else (),
        "options": options,
        "bundle": subject.bundle,
        "distinct_images": distinct_images,
        "server": subject.server,
        "machine": Machine.this(),
        "versions": versions(_LIBRARIES),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
