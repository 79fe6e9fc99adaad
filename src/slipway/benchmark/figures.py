"""Turns observations into reported figures: verdicts, histograms, and the server's own time per step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slipway.benchmark import processes
from slipway.benchmark.load import Arrivals, Block, Milliseconds, rate_per_s
from slipway.benchmark.looks import Look
from slipway.benchmark.server import StepCounters
from slipway.benchmark.statistics import (
    HdrHistogram,
    Judgement,
    histogram_of,
    judge_block,
    judge_generator,
    judge_run,
    latency_of,
    lateness_limit_ms,
    merged,
    weigh,
)
from slipway.contract.evidence.latency import (
    BlockResult,
    GateOptions,
    Generator,
    LookResult,
    Measured,
    ServerUse,
    StepTime,
    WarmUp,
)


@dataclass(frozen=True)
class GeneratorUse:
    """The generators that a measurement used."""

    processes: int
    processes_reason: str
    cpu_cores: float
    shares_cores_with_server: bool
    go_first: bool


def measured(
    options: GateOptions,
    blocks: Sequence[Block],
    judgement: Judgement,
    *,
    looks: Sequence[LookResult],
    client: GeneratorUse,
    first_answer_ms: float,
    steps: Sequence[StepTime],
    server_use: ServerUse | None,
) -> Measured:
    """Compute the figures of one rate."""
    histograms = [histogram_of(block.latencies_ms) for block in blocks]
    schedule_errors_ms = np.concatenate([block.schedule_errors_ms for block in blocks])
    offered_per_s, achieved_per_s = rates_per_s(blocks, limit_ms=options.limit_ms)
    return Measured(
        verdict=judgement.verdict,
        reason=judgement.reason,
        offered_per_s=offered_per_s,
        achieved_per_s=achieved_per_s,
        latency=latency_of(merged(histograms)),
        failures=dict(sum((Counter(block.failures) for block in blocks), Counter())),
        blocks=tuple(_block_result(b, h, options=options) for b, h in zip(blocks, histograms, strict=True)),
        looks=tuple(looks),
        warm_up=WarmUp(
            first_answer_ms=first_answer_ms, requests=options.warm_up_requests, duration_s=blocks[0].warm_up_s
        ),
        generator=_generator(client, schedule_errors_ms, limit_ms=options.limit_ms),
        steps=tuple(steps),
        server_use=server_use,
    )


def looked(blocks: Sequence[Block], look: Look, *, limit_ms: float, after_s: float) -> tuple[Judgement, LookResult]:
    """Return the verdict on all blocks so far."""
    evidence = weigh([block.latencies_ms for block in blocks], limit_ms=limit_ms, error=look.error)
    offered_per_s, achieved_per_s = rates_per_s(blocks, limit_ms=limit_ms)
    schedule_errors_ms = np.concatenate([block.schedule_errors_ms for block in blocks])
    judgement = judge_generator(schedule_errors_ms, limit_ms=limit_ms) or judge_run(
        evidence, last=look.last, offered_per_s=offered_per_s, achieved_per_s=achieved_per_s
    )
    return judgement, LookResult(verdict=judgement.verdict, after_s=after_s, **vars(evidence))


def rates_per_s(blocks: Sequence[Block], *, limit_ms: float) -> tuple[float, float]:
    """Return the offered and the achieved rate.

    A block may take the latency limit longer than its schedule: its last answers are then in time, and no backlog.
    """
    in_time = [
        Arrivals(block.answered.count, max(block.due.span_s, block.answered.span_s - limit_ms / 1000))
        for block in blocks
    ]
    return rate_per_s(block.due for block in blocks), rate_per_s(in_time)


def _generator(client: GeneratorUse, schedule_errors_ms: Milliseconds, *, limit_ms: float) -> Generator:
    p50_ms, p99_ms = np.quantile(schedule_errors_ms, [0.5, 0.99]).tolist()
    return Generator(
        **vars(client),
        schedule_error_p50_ms=p50_ms,
        schedule_error_p99_ms=p99_ms,
        schedule_error_max_ms=float(schedule_errors_ms.max()),
        schedule_error_limit_ms=lateness_limit_ms(limit_ms),
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
        latency=latency_of(histogram),
        histogram=histogram.encode().decode(),
    )


def step_time(model: str, before: StepCounters, after: StepCounters) -> StepTime:
    """Return the time that one model spent per request between two readings of its counters."""
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


def server_use(before: processes.Snapshot, after: processes.Snapshot) -> ServerUse:
    """Return the CPU use of the server's processes between two snapshots, and their peak memory."""
    return ServerUse(
        processes=len(after.cpu_s), cpu_cores=processes.cores_used(before, after), peak_rss_mib=after.peak_rss_mib
    )
