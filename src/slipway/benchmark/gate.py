"""The latency gate: offers a load, times every request and judges P99."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from slipway.benchmark import processes
from slipway.benchmark.figures import GeneratorUse, looked, measured, server_use, step_time
from slipway.benchmark.generators import Generators, LoadTarget, choose_generators
from slipway.benchmark.load import Block, counted, poisson_schedule
from slipway.benchmark.looks import Look, planned
from slipway.benchmark.server import StepCounters, TritonConnection, on_this_host
from slipway.benchmark.statistics import Judgement
from slipway.contract.evidence.latency import (
    MIN_DISTINCT_IMAGES,
    GateOptions,
    LatencyResult,
    LatencyVerdict,
    LookResult,
    Measured,
    Provenance,
    StepTime,
)
from slipway.contract.evidence.origin import Origin
from slipway.contract.shared_rules import IMAGE_SUFFIXES
from slipway.errors import DataError, ServingError
from slipway.system.files import files_below

MAX_IMAGES = 1024
"""Most images held in memory; from a larger folder they are drawn with the seed."""
_LIBRARIES = ("grpcio", "hdrhistogram", "psutil", "tritonclient")


@dataclass(frozen=True)
class Subject:
    """An ensemble of a running server that has answered once, and the images to send."""

    images: Sequence[bytes]
    bundle: str
    server: str
    models: tuple[str, ...]
    """The names of the ensemble and its steps, in order."""
    first_answer_ms: float


def run_gate(options: GateOptions) -> LatencyResult:
    """Measure and judge one ensemble of a running tritonserver.

    Raises:
        DataError: the folder has no images.
        ServingError: the server, the model or the process does not exist, the first request got no answer, or the
            server was restarted or took up another repository meanwhile.
        GateError: a load generator ended.
    """
    subject = asyncio.run(meet(options))
    looks = planned(options, rate_per_s=options.rate_per_s, minutes=options.minutes)
    found = measure(options, subject, rate_per_s=options.rate_per_s, looks=looks)
    return LatencyResult(**found.fields(), **provenance(options, subject).fields())


async def meet(options: GateOptions) -> Subject:
    """Load the images, find the ensemble and get its first answer. Raises as `run_gate` does."""
    images = load_images(options.images, seed=options.seed)
    async with TritonConnection(options.url, model=options.model, images=images[:1]) as server:
        await server.check_ready()
        started_s = time.perf_counter()
        bundle = await server.first_answer()
        first_answer_ms = (time.perf_counter() - started_s) * 1000
        models = (options.model, *await server.steps())
        await server.check_statistics(models)
        return Subject(images, bundle, await server.version(), models, first_answer_ms)


def measure(
    options: GateOptions, subject: Subject, *, rate_per_s: float, looks: Sequence[Look], first_block: int = 0
) -> Measured:
    """Offer blocks of Poisson arrivals at a rate until a look can decide or is the last.

    Block `i` is drawn from [seed, i].
    """
    pid = options.server_pid
    shares_cores = on_this_host(options.url)
    count, reason = choose_generators(rate_per_s, cores=len(os.sched_getaffinity(0)), shares_cores=shares_cores)
    if options.generators:
        count, reason = options.generators, "as asked for"
    with Generators(count, LoadTarget(options.url, options.model, subject.images)) as generators:
        before = asyncio.run(_counters(options, subject, settle=True))
        watched = processes.snapshot(pid) if pid else None
        offering = _Offering(options, generators, subject, rate_per_s=rate_per_s, first_block=first_block)
        judgement = offering.until_it_can_tell(looks)
        use = server_use(watched, processes.snapshot(pid)) if pid and watched else None
        after = asyncio.run(_counters(options, subject, settle=False))
    return measured(
        options,
        offering.blocks,
        judgement,
        looks=offering.looks,
        client=GeneratorUse(count, reason, offering.cpu_cores, shares_cores, generators.go_first),
        first_answer_ms=subject.first_answer_ms,
        steps=_step_times(options, subject, before, after),
        server_use=use,
    )


class _Offering:
    """Offers blocks one after the other. Each has its own warm-up, so that they are independent."""

    def __init__(
        self, options: GateOptions, generators: Generators, subject: Subject, *, rate_per_s: float, first_block: int
    ) -> None:
        self.blocks: list[Block] = []
        self.looks: list[LookResult] = []
        self._options, self._generators, self._images = options, generators, len(subject.images)
        self._rate_per_s, self._first_block = rate_per_s, first_block
        self._cpu_s, self._started_s = 0.0, time.monotonic()

    @property
    def cpu_cores(self) -> float:
        """CPU cores used for sending."""
        return self._cpu_s / (time.monotonic() - self._started_s)

    def until_it_can_tell(self, looks: Sequence[Look]) -> Judgement:
        most = sum(self._options.warm_up_requests + counted for look in looks for counted in look.blocks)
        rate = f"{self._rate_per_s:.1f}/s"
        with tqdm(total=most, desc=rate, unit=" requests", leave=False, disable=None) as bar:
            for look in looks:
                for requests in look.blocks:
                    self._offer(requests, on_answers=bar.update)
                judgement, seen = looked(
                    self.blocks, look, limit_ms=self._options.limit_ms, after_s=time.monotonic() - self._started_s
                )
                self.looks.append(seen)
                if judgement.verdict is not LatencyVerdict.TOO_FEW:
                    break
                bar.set_description(
                    f"{rate}, {seen.over_limit} over the limit, {seen.independent:,} of {seen.needed:,} "
                    "independent requests needed"
                )
        return judgement

    def _offer(self, requests: int, *, on_answers: Callable[[int], object]) -> None:
        options = self._options
        warm_up = options.warm_up_requests
        rng = np.random.default_rng([options.seed, self._first_block + len(self.blocks)])
        schedule_s = poisson_schedule(warm_up + requests, rate_per_s=self._rate_per_s, rng=rng)
        order = rng.integers(self._images, size=schedule_s.size).tolist()
        load = self._generators.offer(schedule_s, order, deadline_s=options.deadline_ms / 1000, on_answers=on_answers)
        self.blocks.append(counted(schedule_s, load.sent, warm_up=warm_up, deadline_ms=options.deadline_ms))
        self._cpu_s += load.cpu_s


async def _counters(options: GateOptions, subject: Subject, *, settle: bool) -> dict[str, StepCounters]:
    """Read the server's counters, at once or after the queue is empty."""
    async with TritonConnection(options.url, model=options.model, images=subject.images[:1]) as server:
        if settle:
            await server.settle()
        return await server.counters()


def _step_times(
    options: GateOptions, subject: Subject, before: Mapping[str, StepCounters], after: Mapping[str, StepCounters]
) -> list[StepTime]:
    """The time of each model between two readings. Raises ServingError where the readings are not of one server."""
    for name in subject.models:
        if name not in before or name not in after or after[name].requests < before[name].requests:
            raise ServingError(
                f"{options.url}: {name} was unloaded or restarted during the measurement, so the figures are not of "
                "one server; measure again, without a reload or restart"
            )
    return [step_time(name, before[name], after[name]) for name in subject.models]


def provenance(options: GateOptions, subject: Subject) -> Provenance:
    distinct_images = len(set(subject.images))
    few = f"{distinct_images} distinct images; publication takes {MIN_DISTINCT_IMAGES} or more"
    return Provenance(
        caveats=(few,) if distinct_images < MIN_DISTINCT_IMAGES else (),
        options=options,
        bundle=subject.bundle,
        distinct_images=distinct_images,
        server=subject.server,
        **Origin.here(_LIBRARIES).fields(),
    )


def load_images(folder: Path, *, seed: int) -> list[bytes]:
    """Read at most `MAX_IMAGES` image files below `folder`, in a seeded order.

    Raises:
        DataError: the folder has no image files.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with image files in or below it")
    paths = [path for path in files_below(folder).values() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise DataError(f"{folder}: no image in or below it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    chosen = np.random.default_rng(seed).permutation(len(paths))[:MAX_IMAGES]
    return [paths[index].read_bytes() for index in chosen.tolist()]
