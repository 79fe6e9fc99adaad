"""Result files for the benchmark report: of a simulated server, judged by the gate's own code, and of the scripts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slipway.benchmark.capacity as capacity_module
from slipway.benchmark import CapacityResult, GateOptions, GateResult, find_capacity
from slipway.benchmark.figures import Client, Seen, looked, measured
from slipway.benchmark.gate import Subject, provenance
from slipway.benchmark.load import Block, Sent, counted, poisson_schedule
from slipway.benchmark.looks import Look, planned
from slipway.benchmark.perf_analyzer_result import ModelRun, PerfAnalyzerOptions, PerfAnalyzerResult
from slipway.benchmark.result import Latency, Machine, Measured, ServerUse, StepTime
from slipway.benchmark.statistics import Verdict, histogram_of

BUNDLE = "0123456789abcdef" * 4
SERVICE_S = 0.005
STEPS = ("preprocess_1", "engine_1", "post_1")
MACHINE = {"cpu": "a <processor>", "cores": 2, "memory_gib": 8.0, "system": "Linux", "python": "3.11.7"}
SCRIPT = {
    "created": "2026-01-02T03:04:05+00:00",
    "commit": "0" * 40,
    "machine": MACHINE,
    "versions": {"numpy": "1.26.4"},
    "seed": 0,
    "distinct_images": 300,
    "client_shares_the_cores": True,
}
OVERLOADED = {
    "offered_per_s": 300.0,
    "goodput_per_s": 90.0,
    "goodput_share_of_capacity": 0.9,
    "accepted_p50_ms": 12.0,
    "accepted_p99_ms": 34.0,
    "failures": {"rejected": 6300},
    "generator_late_p99_ms": 1.5,
    "client_cpu_cores": 0.3,
    "afterwards": {"failed": {}, "p99_ms": 9.0, "seconds_to_normal": 0.4, "late_answers": 0},
}
OVERLOAD = {
    "capacity_per_s": 100.0,
    "saturation_per_s": 150.0,
    "ladder": [{"rate_per_s": 60.0, "p99_ms": 15.0, "failed": {}}, {"rate_per_s": 100.0, "p99_ms": 44.0, "failed": {}}],
    "3x": OVERLOADED,
    "10x": OVERLOADED | {"accepted_p99_ms": None, "goodput_share_of_capacity": 0.0},
}
COMPANY = {"seconds_to_ready": 3.0, "memory_mib": 500.0, "p50_ms": 7.0, "p99_ms": 12.0, "failed": {}}
COMPANIES = {
    "1": COMPANY,
    "50": COMPANY | {"memory_mib": 9000.0, "seconds_from_kill_to_all_answering": 41.0},
    "memory_mib_of_each_additional": 173.5,
}
ROBUSTNESS = SCRIPT | {
    "reload": {
        "rate_per_s": 40.0,
        "reloads": 10,
        "reload_seconds_max": 2.5,
        "requests": 2400,
        "failed": {},
        "failed_without_reloads": {"timed out": 1},
        "answers_of_no_version": 0,
        "mixed": 0,
        "p99_ms_without_reloads": 15.0,
        "p99_ms": 31.0,
    },
    "kills": {
        "engine": {
            "seconds_to_first_right_answer": 0.2,
            "seconds_until_the_last_error": 1.25,
            "requests": 800,
            "lost": {"error INTERNAL": 2},
            "longest_wait_s": 1.0,
        },
        "server": {
            "seconds_to_first_right_answer": None,
            "seconds_until_the_last_error": 16.0,
            "requests": 800,
            "lost": {"rejected": 640},
            "longest_wait_s": 0.1,
        },
    },
    "overload": {"steps": OVERLOAD, "fused": OVERLOAD},
    "fifty": {
        "classifiers": 50,
        "steps": COMPANIES,
        "shared_decode": COMPANIES | {"memory_mib_of_each_additional": 88.0},
    },
}
LAYOUTS = SCRIPT | {
    "fused_to_steps": {"p50_ms": [0.7, 0.75, 0.85], "saturation_per_s": [1.2, 1.4, 1.5]},
    "memory_mib": {"steps": 600.0, "fused": 500.0},
    "rounds": {
        "steps": [{"p50_ms": 8.0, "saturation_per_s": 140.0}, {"p50_ms": 10.0, "saturation_per_s": 160.0}],
        "fused": [{"p50_ms": 6.0, "saturation_per_s": 200.0}, {"p50_ms": 7.0, "saturation_per_s": 220.0}],
    },
}
SHARE = {"mean": 0.81, "least": 0.75, "most": 0.9, "standard_error": 0.5}
PARTS = {"client": 12.0, "a queue": 0.3, "a input": 0.2, "a infer": 10.0, "a output": 0.5, "rest": 1.0}
EFFICIENCY = SCRIPT | {
    "limit_ms": 50.0,
    "targets": {"steps": 0.8, "fused": 0.95},
    "classifiers": {
        "a_backbone": {
            "batches": {"pool": "batches up to 2", "steps": "batches up to 2", "fused": "batches up to 1"},
            "share_of_pool": {"steps": SHARE, "fused": SHARE | {"mean": 0.93}},
            "capacity_per_s": {"pool": [120.0, 130.0], "steps": [95.0, 105.0], "fused": [110.0, 120.0]},
            "one_by_one_ms": {
                "pool": {"client": 9.0, "engine infer": 8.0, "rest": 1.0},
                "steps": PARTS,
                "fused": PARTS,
            },
            "processor_ms": {side: {"server": 8.0, "client": 0.4} for side in ("pool", "steps", "fused")},
            "distinct_images": 300,
        }
    },
}
TIMES = {"mean": 1.42, "low": 1.3, "high": 1.55, "least": 1.21, "most": 1.61, "standard_error": 0.4}
PEERS = SCRIPT | {
    "limit_ms": 50.0,
    "backbone": "a_backbone",
    "settings": {"slipway_fused": "batches up to 1, pinned", "fastapi": "batches up to 2"},
    "left_out": {"ray": "GateError: it did not start\nits log"},
    "capacity_per_s": {"slipway_fused": [120.0, 130.0], "fastapi": [85.0, 90.0]},
    "times_the_capacity": {"fastapi": TIMES},
    "light_load": {
        "rate_per_s": 20.0,
        "over_slipway_fused": {
            "slipway_fused": {"p50_ms": SHARE | {"mean": 1.0}, "p99_ms": SHARE | {"mean": 1.0}},
            "fastapi": {"p50_ms": SHARE, "p99_ms": SHARE},
        },
    },
}
PASSES = {
    "at the limit": {"rule": 0.01, "fails": 0.5, "seconds": 290.0},
    "20 % under": {"rule": 0.5, "fails": 0.0, "seconds": 210.0},
    "half of it": {"rule": 1.0, "fails": 0.0, "seconds": 66.0},
}
VERDICT = SCRIPT | {
    "runs": 2000,
    "blocks": 3,
    "requests_per_block": 1000,
    "minutes": 5.0,
    "servers": [
        {"server": "independent", "utilisation": None, "rate_per_s": 50, "passes": PASSES, "allowed": 0.01},
        {"server": "M/D/1", "utilisation": 0.98, "rate_per_s": 50, "passes": PASSES, "allowed": None},
    ],
}


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
        if judgement.verdict is not Verdict.TOO_FEW:
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
    seen_at_all = Seen(
        blocks=tuple(drawn),
        judgement=judgement,
        looks=tuple(seen_by_look),
        first_answer_ms=12.0,
        client=Client(1, "as asked for", cpu_cores=0.1, shares_cores=True, go_first=True),
        steps=(whole, *steps),
        server_use=ServerUse(processes=6, cpu_cores=0.4, peak_rss_mib=600.0),
    )
    return measured(seen_at_all, asked)


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


def gate(*, rate_per_s: float = 50.0, bundle: str = BUNDLE, images: int = 300, **changed: Any) -> GateResult:
    asked = options(rate_per_s=rate_per_s, **changed)
    found = served(asked, rate_per_s=rate_per_s, looks=planned(asked, rate_per_s=rate_per_s, minutes=asked.minutes))
    return GateResult(**dict(found), **provenance(asked, subject(bundle=bundle, images=images)))


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
        latency=Latency.of(histogram),
        histogram=histogram.encode().decode(),
        shares_cores_with_server=True,
        server="triton 2.51.0",
        machine=Machine(**MACHINE),
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
    scripts = {"layouts": LAYOUTS, "efficiency": EFFICIENCY, "peers": PEERS, "robustness": ROBUSTNESS}
    for name, data in (scripts | {"verdict": VERDICT}).items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return {path.stem: path for path in sorted(folder.glob("*.json"))}
