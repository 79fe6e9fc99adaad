"""Makes the tables of percentiles, rates, client and server, and the provenance of each file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from slipway.benchmark.page.files import ResultFile, Sides, ends_with
from slipway.benchmark.page.series import PARTS, Series, Steps
from slipway.benchmark.page.verdicts import TONES, badge
from slipway.contract.evidence.latency import (
    BlockResult,
    CapacityResult,
    Latency,
    LatencyResult,
    LookResult,
    PerfAnalyzerResult,
    Rung,
    StepTime,
)
from slipway.contract.evidence.studies import VerdictResult
from slipway.pages.tables import Badge, Cell, Column, Scale, Strip, Table, table
from slipway.pages.wording import NONE, counted, figures

PERCENTILES = ("P50", "P90", "P99", "P99.9", "max")
NAMES_OF_PARTS = ("queue", "input", "infer", "output", "other")
COLOURS_OF_PARTS = (1, 4, 0, 2, 5)
HIDDEN_OPTIONS = {"images", "url", "server_pid"}
"""Options that only matter on the machine that measured."""


@dataclass(frozen=True)
class Bar:
    """The parts of one model's time per request."""

    time: StepTime
    parts: tuple[tuple[str, float, float], ...]
    """Name, µs, and percentage of the longest bar of its load, for each part."""

    @property
    def stack(self) -> list[tuple[str, float]]:
        return [(f"s{colour}", percent) for colour, (_, _, percent) in zip(COLOURS_OF_PARTS, self.parts, strict=True)]


def percentiles(series: Sequence[Series]) -> Table:
    p99s_ms = [
        value for one in series for value in (*(one.judged.block_p99s_ms if one.judged else ()), one.latency.p99_ms)
    ]
    axis = Scale.over([*p99s_ms, *(one.judged.limit_ms for one in series if one.judged)])
    return table(
        "Milliseconds by percentile",
        "of all blocks, merged. The line on P99 spans the lowest to the highest block, the dashed line is the limit. "
        "Failures count as over the limit, at the client's deadline.",
        ("", "P50", "P90", Column("P99", axis=axis), "P99.9", "max", "over the limit", "failures", "verdict"),
        [_percentile_row(one) for one in series],
        words=("failures", "verdict"),
        wide=("over the limit", "failures"),
    )


def _percentile_row(one: Series) -> tuple[Cell, ...]:
    latency, judged = one.latency, one.judged
    p50, p90, p99, p999, most = _times(latency)
    if judged is None:
        return one.name, p50, p90, Strip(p99, latency.p99_ms), p999, most, NONE, NONE, Badge("not judged", "plain")
    found, (low, high) = judged.measured, judged.block_p99s_ms
    text = f"{p99} ({figures(low)} to {figures(high)})"
    strip = Strip(text, latency.p99_ms, low, high, judged.limit_ms, TONES[found.verdict])
    over = f"{judged.over_limit:,} of {one.requests:,}"
    return one.name, p50, p90, strip, p999, most, over, counted(found.failures), badge(found.verdict)


def block_tables(series: Iterable[Series]) -> list[Table]:
    """Make the tables of every block of every gate."""
    titles = ("block", *PERCENTILES, "over the limit", "failures", "alone")
    return [
        table(
            one.name,
            f"block by block, {one.load}, ms.",
            titles,
            [_block_row(number, block) for number, block in enumerate(one.judged.measured.blocks, start=1)],
            words=("failures", "alone"),
            wide=("failures",),
        )
        for one in series
        if one.judged is not None
    ]


def _block_row(number: int, block: BlockResult) -> tuple[Cell, ...]:
    over = f"{block.over_limit:,} of {block.requests:,}"
    return str(number), *_times(block.latency), over, counted(block.failures), badge(block.verdict)


def _times(latency: Latency) -> tuple[str, ...]:
    """Format the latencies in the order of `PERCENTILES`."""
    all_ms = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms)
    return tuple(figures(ms) for ms in all_ms)


def look_tables(series: Iterable[Series]) -> list[Table]:
    """Make the tables of each gate's looks, which led to its verdict; older files have none."""
    titles = ("after s", "over the limit", "independent", "needed", "verdict")
    note = (
        "look by look: all requests so far, their effective number of independent ones, and the number needed to pass."
    )
    return [
        table(one.name, note, titles, [_look_row(look) for look in one.judged.measured.looks], words=("verdict",))
        for one in series
        if one.judged is not None and one.judged.measured.looks
    ]


def _look_row(look: LookResult) -> tuple[Cell, ...]:
    over = f"{look.over_limit:,} of {look.requests:,}"
    return f"{look.after_s:.0f}", over, f"{look.independent:,}", f"{look.needed:,}", badge(look.verdict)


def rungs(files: Iterable[ResultFile]) -> list[Table]:
    """Make the tables of every rate of every search, in the order of the tests."""
    titles = ("requests/s", "achieved", *PERCENTILES, "sent late at P99", "blocks", "verdict")
    note = "in the order tried, ms. One block only says where to look; the verdict that counts has more."
    wide, words = ("P90", "P99.9", "max", "achieved"), ("verdict",)
    return [
        table("Every rate", note, titles, map(_rung_row, file.result.rungs), source=file.name, words=words, wide=wide)
        for file in files
        if isinstance(file.result, CapacityResult)
    ]


def _rung_row(rung: Rung) -> tuple[Cell, ...]:
    rates = (f"{rung.rate_per_s:.1f}", f"{rung.achieved_per_s:.1f}")
    late, blocks = f"{rung.generator.schedule_error_p99_ms:.2f}", str(len(rung.blocks))
    return *rates, *_times(rung.latency), late, blocks, badge(rung.verdict)


def bars(steps: Steps) -> list[Bar]:
    """Make the bars of the ensemble and its steps; the remaining time passes between the steps."""
    longest_us = max(time.total_us for time in steps.times) or 1.0
    found = []
    for time in steps.times:
        parts_us = [getattr(time, name) for name in PARTS]
        parts_us.append(max(0.0, time.total_us - sum(parts_us)))
        named = zip(NAMES_OF_PARTS, parts_us, strict=True)
        found.append(Bar(time, tuple((name, us, round(100 * us / longest_us, 2)) for name, us in named)))
    return found


def resources(files: Iterable[ResultFile]) -> Table | None:
    """Make the table of client and server use, and of the warm-up, which is not counted."""
    rows = [row for file in files for row in _resource_rows(file)]
    if not rows:
        return None
    titles = ("", "server: cores", "peak MiB", "client: cores", "late at P99, ms", "first answer, ms", "warm-up")
    note = "during the load. The client's lateness is part of every latency."
    return table("Server and client", note, titles, rows, wide=("warm-up", "first answer, ms"))


def _resource_rows(file: ResultFile) -> Iterator[tuple[Cell, ...]]:
    if not isinstance(file.result, LatencyResult | CapacityResult):
        return
    seen = ends_with(file.result)
    use, client = seen.server_use, seen.generator
    shared = " of the server's" if client.shares_cores_with_server else ""
    yield (
        file.name,
        f"{use.cpu_cores:.2f}" if use else NONE,
        f"{use.peak_rss_mib:,.0f}" if use else NONE,
        f"{client.cpu_cores:.2f}{shared}",
        f"{client.schedule_error_p99_ms:.2f} of {client.schedule_error_limit_ms:g}",
        f"{seen.warm_up.first_answer_ms:.0f}",
        f"{seen.warm_up.requests} in {seen.warm_up.duration_s:.1f} s",
    )


def facts(file: ResultFile) -> list[tuple[str, str]]:
    """Return the file's provenance as pairs of term and text."""
    result, machine = file.result, file.result.machine
    found = [
        ("written by", f"benchmarks/{file.kind}"),
        ("sha256", file.sha256[:16]),
        ("measured", result.created),
        ("machine", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("commit", result.commit or "not known"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))),
    ]
    if isinstance(result, Sides | VerdictResult):
        found.append(("seed", str(result.seed)))
    else:
        options = result.options.model_dump(
            mode="json",
            exclude=HIDDEN_OPTIONS,
            exclude_none=True,
            exclude_unset=True,  # older files lack newer options
        )
        found.append(("server", f"{result.server}, bundle {result.bundle[:16]}"))
        found.append(("options", ", ".join(f"{name} {value}" for name, value in options.items())))
    if not isinstance(result, VerdictResult):
        found += [("distinct images", str(result.distinct_images)), ("client", _client(result))]
    return found


def _client(result: LatencyResult | CapacityResult | PerfAnalyzerResult | Sides) -> str:
    """Describe whether the client used the server's cores, and its number of processes."""
    if isinstance(result, Sides):
        shares, processes = result.client_shares_the_cores, ""
    elif isinstance(result, PerfAnalyzerResult):
        shares, processes = result.shares_cores_with_server, ""
    else:
        generator = ends_with(result).generator
        shares = generator.shares_cores_with_server
        processes = f"; processes: {generator.processes}, {generator.processes_reason}"
    return f"{'on the cores of the server' if shares else 'not on the cores of the server'}{processes}"
