"""Formats the results of a gate and of a capacity search as text tables."""

from collections.abc import Iterator, Mapping, Sequence

from slipway.contract.evidence.latency import CapacityResult, Generator, Latency, LatencyResult, Rung

Row = Sequence[str]


def summary(result: LatencyResult) -> str:
    """Format latency per block and overall, looks, rates, failures, time per step, and the verdict last."""
    return "\n".join(
        [*_latency(result), *_looks(result), "", *_facts(result), "", *_steps(result), "", *_verdict(result)]
    )


def _latency(result: LatencyResult) -> Iterator[str]:
    heading = ("latency, ms", "P50", "P90", "P99", "P99.9", "max", "over limit", "verdict")
    rows = [
        (f"block {number}", *_figures(b.latency), f"{b.over_limit} of {b.requests:,}", b.verdict.value)
        for number, b in enumerate(result.blocks, start=1)
    ]
    over_limit, requests = sum(b.over_limit for b in result.blocks), sum(b.requests for b in result.blocks)
    together = ("all", *_figures(result.latency), f"{over_limit} of {requests:,}", result.verdict.value)
    return _columns([heading, *rows, together])


def _looks(result: LatencyResult) -> Iterator[str]:
    if not result.looks:
        return
    heading = ("look", "after s", "over limit", "independent", "needed", "verdict")
    rows = [
        (
            str(number),
            f"{look.after_s:.0f}",
            f"{look.over_limit} of {look.requests:,}",
            f"{look.independent:,}",
            f"{look.needed:,}",
            look.verdict.value,
        )
        for number, look in enumerate(result.looks, start=1)
    ]
    yield ""
    yield from _columns([heading, *rows])


def _figures(latency: Latency) -> tuple[str, ...]:
    values_ms = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms)
    return tuple(f"{value_ms:.1f}" for value_ms in values_ms)


def _facts(result: LatencyResult) -> Iterator[str]:
    use, options = result.server_use, result.options
    yield f"rate        {result.offered_per_s:.1f} requests/s offered, {result.achieved_per_s:.1f} achieved"
    yield f"failures    {_failures(result.failures)}"
    yield from _generator(result.generator)
    yield (
        f"warm-up     first answer after {result.warm_up.first_answer_ms:.0f} ms, then {result.warm_up.requests} "
        f"requests in {result.warm_up.duration_s:.1f} s; not counted"
    )
    if use:
        yield f"server use  {use.cpu_cores:.2f} cores, {use.peak_rss_mib:,.0f} MiB at peak, {use.processes} processes"
    yield f"images      {result.distinct_images} distinct; seed {options.seed}"
    yield f"server      {result.server}, bundle {result.bundle[:12]}"
    yield f"machine     {result.machine.cpu}, {result.machine.cores} cores, {result.machine.memory_gib:g} GiB"


def _generator(generator: Generator) -> Iterator[str]:
    order = "with priority over it" if generator.go_first else "without priority over it"
    where = f"on the server's cores, {order}" if generator.shares_cores_with_server else "on another machine"
    used = f"{generator.cpu_cores:.2f} cores used"
    yield f"generators  {generator.processes} {where} ({generator.processes_reason}); {used}"
    yield (
        f"sent late   P50 {generator.schedule_error_p50_ms:.2f} ms, P99 {generator.schedule_error_p99_ms:.2f} ms of "
        f"{generator.schedule_error_limit_ms:g} allowed, max {generator.schedule_error_max_ms:.2f} ms"
    )


def _failures(failures: Mapping[str, int]) -> str:
    if not failures:
        return "none"
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(failures.items()))
    return f"{counts}; counted as over the limit, at the client's deadline"


def _steps(result: LatencyResult) -> Iterator[str]:
    heading = ("server, µs per request", "queue", "input", "infer", "output", "total", "images/execution")
    rows = []
    for step in result.steps:
        times_us = (step.queue_us, step.compute_input_us, step.compute_infer_us, step.compute_output_us, step.total_us)
        batch = f"{step.images_per_execution:.2f}" if step.images_per_execution else "-"
        rows.append((step.model, *(f"{time_us:,.0f}" for time_us in times_us), batch))
    return _columns([heading, *rows])


def _verdict(result: LatencyResult) -> Iterator[str]:
    yield from (f"not for publication: {caveat}" for caveat in result.caveats)
    limit = f"P99 {result.latency.p99_ms:.1f} ms against {result.options.limit_ms:g} ms"
    yield f"{result.verdict.upper()}: {limit} at {result.options.rate_per_s:g}/s; {result.reason}"


def rung_line(rung: Rung) -> str:
    """Format one rate of a search, which is printed as soon as it is known."""
    return (
        f"{'confirm' if rung.confirms else 'search':7}  {rung.rate_per_s:7.1f}/s  P50 {rung.latency.p50_ms:7.1f} ms  "
        f"P99 {rung.latency.p99_ms:7.1f} ms  achieved {rung.achieved_per_s:7.1f}/s  "
        f"late {rung.generator.schedule_error_p99_ms:5.1f} ms at P99  {rung.verdict}"
    )


def capacity_summary(result: CapacityResult) -> str:
    """Format the interval and the reason for its upper end."""
    options, generator = result.options, result.rungs[-1].generator
    limit = f"P99 within {options.limit_ms:g} ms"
    above = f", under {result.not_passed_per_s:.1f}" if result.not_passed_per_s else ""
    found = f"{result.passed_per_s:.1f} requests/s{above}" if result.passed_per_s else f"not shown{above}"
    lines = [
        *_generator(generator),
        f"images      {result.distinct_images} distinct; seed {options.seed}",
        f"server      {result.server}, bundle {result.bundle[:12]}",
        f"machine     {result.machine.cpu}, {result.machine.cores} cores, {result.machine.memory_gib:g} GiB",
        "",
        *(f"not for publication: {caveat}" for caveat in result.caveats),
        f"CAPACITY: {found} with {limit}; {result.reason}",
    ]
    return "\n".join(lines)


def _columns(rows: Sequence[Row]) -> Iterator[str]:
    """Align the first column left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join((row[0].ljust(widths[0]), *cells))
