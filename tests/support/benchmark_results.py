"""Result files for the speed page: of a simulated server, judged by the gate's own code, and the studies' own."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slipway.benchmark.capacity as capacity_module
from slipway.benchmark import CapacityResult, GateOptions, LatencyResult, find_capacity
from slipway.benchmark.figures import GeneratorUse, looked, measured
from slipway.benchmark.gate import Subject, provenance
from slipway.benchmark.load import Block, Sent, counted, poisson_schedule
from slipway.benchmark.looks import Look, planned
from slipway.benchmark.statistics import histogram_of, latency_of
from slipway.contract.evidence.latency import (
    LatencyVerdict,
    Measured,
    ModelRun,
    PerfAnalyzerOptions,
    PerfAnalyzerResult,
    ServerUse,
    StepTime,
)
from slipway.contract.evidence.origin import Machine

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
STUDIES = ("efficiency", "peers", "robustness", "verdict")
BUNDLE = "0123456789abcdef" * 4
SERVICE_S = 0.005
STEPS = ("preprocess_1", "engine_1", "post_1")
MACHINE = {"cpu": "a <processor>", "cores": 2, "memory_gib": 8.0, "system": "Linux", "python": "3.11.7"}


def options(**changed: Any) -> GateOptions:
    given = {"model": "digits", "images": "images", "requests_per_block": 800, "warm_up_requests": 20, **changed}
    return GateOptions.parse(given, source="test")


def served(asked: GateOptions, *, rate_per_s: float, looks: Sequence[Look], first_block: int = 0) -> Measured:
    """What a server shows that takes one request at a time, 5 ms for most and at random."""
    drawn: list[Block] = []
    seen_by_look = []
    for look in looks:
        for requests in look.blocks:
            drawn.append(queue(asked, rate_per_s=rate_per_s, number=first_block + len(drawn), requests=requests))
        after_s = sum(block.due.span_s for block in drawn)
        judgement, seen = looked(drawn, look, limit_ms=asked.limit_ms, after_s=after_s)
        seen_by_look.append(seen)
        if judgement.verdict is not LatencyVerdict.TOO_FEW:
            break
    parts_us = {"compute_input_us": 100.0, "compute_infer_us": 1400.0, "compute_output_us": 150.0}
    requests = sum(block.latencies_ms.size for block in drawn)
    steps = tuple(
        StepTime(model=name, requests=requests, images_per_execution=1.0, queue_us=90.0, total_us=1750.0, **parts_us)
        for name in STEPS
    )
    whole = StepTime(
        model="digits",
        requests=requests,
        images_per_execution=0.0,
        queue_us=0.0,
        total_us=5600.0,
        **{name: 3 * us for name, us in parts_us.items()},
    )
    return measured(
        asked,
        drawn,
        judgement,
        looks=seen_by_look,
        client=GeneratorUse(1, "as asked for", cpu_cores=0.1, shares_cores_with_server=True, go_first=True),
        first_answer_ms=12.0,
        steps=(whole, *steps),
        server_use=ServerUse(processes=6, cpu_cores=0.4, peak_rss_mib=600.0),
    )


def queue(asked: GateOptions, *, rate_per_s: float, number: int, requests: int) -> Block:
    rng = np.random.default_rng([asked.seed, number])
    count = asked.warm_up_requests + requests
    due_s = poisson_schedule(count, rate_per_s=rate_per_s, rng=rng)
    done_s, free_s = np.empty(count), 0.0
    for index, service_s in enumerate(SERVICE_S * rng.lognormal(sigma=0.25, size=count)):
        free_s = max(free_s, due_s[index] + 0.0001) + service_s
        done_s[index] = free_s
    sent = Sent(due_s + 0.0001, done_s, [None] * count)
    return counted(due_s, sent, warm_up=asked.warm_up_requests, deadline_ms=asked.deadline_ms)


def subject(*, bundle: str = BUNDLE, images: int = 300) -> Subject:
    return Subject(
        [str(number).encode() for number in range(images)], bundle, "triton 2.51.0", ("digits", *STEPS), 12.0
    )


def gate(*, rate_per_s: float = 50.0, bundle: str = BUNDLE, images: int = 300, **changed: Any) -> LatencyResult:
    asked = options(rate_per_s=rate_per_s, **changed)
    found = served(asked, rate_per_s=rate_per_s, looks=planned(asked, rate_per_s=rate_per_s, minutes=asked.minutes))
    return LatencyResult(**dict(found), **provenance(asked, subject(bundle=bundle, images=images)).fields())


def capacity(**changed: Any) -> CapacityResult:
    """A whole search of the simulated server."""

    async def meet(_: GateOptions) -> Subject:
        return subject()

    def measure(asked: GateOptions, _: Subject, **rates: Any) -> Measured:
        return served(asked, **rates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity_module, "meet", meet)
        patch.setattr(capacity_module, "measure", measure)
        return find_capacity(options(**changed))


def perf_analyzer() -> PerfAnalyzerResult:
    latencies_ms = np.random.default_rng(0).lognormal(2, 0.3, 900)
    run = {"throughput_per_s": 146.0, "p50_us": 7000.0, "p90_us": 11000.0, "p99_us": 15000.0, "queue_us": 300.0}
    parts = {"compute_input_us": 100.0, "compute_infer_us": 5000.0, "compute_output_us": 400.0}
    histogram = histogram_of(latencies_ms)
    return PerfAnalyzerResult(
        options=PerfAnalyzerOptions(model="digits", images=Path("images"), concurrency=4),
        caveats=("a closed loop: for saturation",),
        bundle=BUNDLE,
        distinct_images=64,
        runs=tuple(ModelRun(model=name, requests=900, **run, **parts) for name in ("digits", *STEPS)),
        latency=latency_of(histogram),
        histogram=histogram.encode().decode(),
        shares_cores_with_server=True,
        server="triton 2.51.0",
        machine=Machine.parse(MACHINE, source="the test"),
        versions={},
        commit=None,
        created="2026-01-02T03:04:05+00:00",
    )


def write_all(folder: Path) -> dict[str, Path]:
    """A file of every kind, by its name without the suffix."""
    gate().write(folder / "gate.json")
    gate(rate_per_s=150.0, images=3).write(folder / "busy.json")
    capacity().write(folder / "capacity.json")
    perf_analyzer().write(folder / "perf_analyzer.json")
    for name in STUDIES:
        shutil.copyfile(RESULTS / f"{name}.json", folder / f"{name}.json")
    return {path.stem: path for path in sorted(folder.glob("*.json"))}
