"""Sides that were measured in one run, and the verdict against simulated servers."""

from collections.abc import Iterable, Iterator, Mapping

from slipway.benchmark.page.axes import Linear
from slipway.benchmark.page.capacities import efficiency, peers
from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.page.tables import Cell, Column, Strip, Table, share_interval
from slipway.benchmark.page.tones import Tone
from slipway.benchmark.page.wording import NONE, counted, figures, percent
from slipway.contract.evidence.studies import (
    Company,
    EfficiencyResult,
    Fifty,
    Kill,
    LayoutsResult,
    Overload,
    Overloaded,
    PeersResult,
    Reload,
    RobustnessResult,
    VerdictResult,
)

FIGURES = {"p50_ms": "P50 of one client", "saturation_per_s": "rate of 8 clients"}
ONCE = "Measured once: one run has no interval of its own."


def comparisons(files: Iterable[ResultFile]) -> list[Table]:
    """In the order of the files."""
    return [table for file in files for table in _tables(file)]


def _tables(file: ResultFile) -> Iterator[Table]:
    result = file.result
    if isinstance(result, LayoutsResult):
        yield _layouts(file.name, result)
    if isinstance(result, VerdictResult):
        yield _verdict(file.name, result)
    if isinstance(result, EfficiencyResult):
        yield from efficiency(file.name, result)
    if isinstance(result, PeersResult):
        yield peers(file.name, result)
    if isinstance(result, RobustnessResult):
        if result.reload:
            yield _reload(file.name, result.reload)
        if result.kills:
            yield _kills(file.name, result.kills)
        if result.overload:
            yield _overload(file.name, result.overload)
        if result.fifty:
            yield _fifty(file.name, result.fifty)


def _layouts(source: str, result: LayoutsResult) -> Table:
    axis = Linear.over([1.0, *(high for _, _, high in result.fused_to_steps.values())])
    rows: list[tuple[Cell, ...]] = []
    for figure, (low, middle, high) in result.fused_to_steps.items():
        strip = Strip(f"{middle:.2f} ({low:.2f} to {high:.2f})", middle, low, high)
        sides = (f"{figures(_median(result, layout, figure))}" for layout in ("steps", "fused"))
        rows.append((FIGURES.get(figure, figure), *sides, strip))
    sizes = {layout: f"{mib:,.0f}" for layout, mib in result.memory_mib.items()}
    ratio = result.memory_mib["fused"] / result.memory_mib["steps"]
    rows.append(("memory, MiB", sizes["steps"], sizes["fused"], Strip(f"{ratio:.2f}", ratio)))
    return Table(
        title="One step in place of three",
        note=f"{len(result.rounds['fused'])} interleaved rounds: medians, and the ratio within a round from the least "
        "to the greatest. ms and requests/s; memory was read once.",
        source=source,
        columns=(Column(""), Column("steps"), Column("fused"), Column("fused to steps", axis=axis, origin=1.0)),
        rows=tuple(rows),
    )


def _median(result: LayoutsResult, layout: str, figure: str) -> float:
    values = sorted(float(getattr(one, figure)) for one in result.rounds[layout])
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _verdict(source: str, result: VerdictResult) -> Table:
    limits = [server.allowed for server in result.servers if server.allowed]
    judged = [server for server in result.servers if server.allowed is not None]
    highs = [share_interval(s.passes["at the limit"].rule, of=result.runs)[1] for s in judged]
    axis = Linear.over([100 * value for value in (*limits, *highs)])
    rows: list[tuple[Cell, ...]] = []
    for server in result.servers:
        share = server.passes["at the limit"].rule
        low, high = share_interval(share, of=result.runs)
        tone: Tone = "plain" if server.allowed is None else "bad" if share > server.allowed else "good"
        limit = None if server.allowed is None else 100 * server.allowed
        strip = Strip(
            f"{percent(share)} ({percent(low)} to {percent(high)})", 100 * share, 100 * low, 100 * high, limit, tone
        )
        power = [
            f"{passes.rule:.1%} ({passes.seconds:.0f} s)"
            for place, passes in server.passes.items()
            if place != "at the limit"
        ]
        load = NONE if server.utilisation is None else f"{server.utilisation:g}"
        rows.append((server.server, load, f"{server.rate_per_s:g}", strip, *power))
    places = [place for place in result.servers[0].passes if place != "at the limit"]
    return Table(
        title="How often the verdict errs",
        note=f"{result.runs:,} simulated runs of each server: the share that passes with the true P99 on the limit, in "
        "per cent, with its 95 % interval and what is allowed; and with P99 lower, where passing is right, with the "
        f"mean length of a run, at most {result.minutes:g} minutes. Without a dashed line: not judged. An arrow: "
        "beyond the axis.",
        source=source,
        columns=(
            Column("server"),
            Column("load"),
            Column("requests/s"),
            Column("passes falsely", axis=axis),
            *(Column(p, wide=True) for p in places),
        ),
        rows=tuple(rows),
    )


def _reload(source: str, seen: Reload) -> Table:
    axis = Linear.over([seen.p99_ms, seen.p99_ms_without_reloads])
    rows = (
        _reload_row("without", seen.p99_ms_without_reloads, seen.failed_without_reloads, seen.requests),
        _reload_row(f"{seen.reloads} reloads", seen.p99_ms, seen.failed, seen.requests),
    )
    return Table(
        title="Reloads under load",
        note=f"{seen.rate_per_s:g} requests/s, {seen.requests:,} without reloads and as many with; the slowest reload "
        f"took {seen.reload_seconds_max:.1f} s. Answers that mix two bundles: {seen.mixed}; of neither: "
        f"{seen.answers_of_no_version}. In brackets the 95 % interval of the share that fails. {ONCE}",
        source=source,
        columns=(Column(""), Column("P99, ms", axis=axis), Column("failed", words=True), Column("why", words=True)),
        rows=rows,
    )


def _reload_row(name: str, p99_ms: float, failed: Mapping[str, int], requests: int) -> tuple[Cell, ...]:
    count = sum(failed.values())
    low, high = share_interval(count / requests, of=requests)
    return name, Strip(figures(p99_ms), p99_ms), f"{count:,} ({percent(low)} to {percent(high)})", counted(failed)


def _kills(source: str, kills: Mapping[str, Kill]) -> Table:
    axis = Linear.over(kill.seconds_until_the_last_error for kill in kills.values())
    rows: list[tuple[Cell, ...]] = []
    for what, kill in kills.items():
        first, last = kill.seconds_to_first_right_answer, kill.seconds_until_the_last_error
        lost = f"{sum(kill.lost.values()):,} of {kill.requests:,}"
        strip = Strip(f"{last:.2f}", last)
        rows.append((what, "never" if first is None else f"{first:.2f}", strip, lost, counted(kill.lost)))
    return Table(
        title="A process is killed",
        note=f"under load: seconds after the kill until the first right answer, and until the last error. {ONCE}",
        source=source,
        columns=(
            Column("killed"),
            Column("first right, s"),
            Column("last error, s", axis=axis),
            Column("lost"),
            Column("why", wide=True, words=True),
        ),
        rows=tuple(rows),
    )


def _overload(source: str, layouts: Mapping[str, Overload]) -> Table:
    loads = [
        (f"{layout}, {times} ×", seen)  # noqa: RUF001 the sign of multiplication
        for layout, overload in layouts.items()
        for times, seen in ((3, overload.three), (10, overload.ten))
    ]
    capacities = ", ".join(f"{layout} {overload.capacity_per_s:.0f}/s" for layout, overload in layouts.items())
    axis = Linear.over([1.0, *(seen.goodput_share_of_capacity for _, seen in loads)])
    return Table(
        title="More than it can do",
        note=f"for 30 s at 3 and 10 times the capacity ({capacities}): right answers as a share of it, P99 of what was "
        f"accepted, and seconds until an easy load is served as ever. {ONCE}",
        source=source,
        columns=(
            Column(""),
            Column("offered/s"),
            Column("right, of the capacity", axis=axis, origin=1.0),
            Column("accepted P99, ms"),
            Column("recovers, s"),
            Column("refused or failed", wide=True, words=True),
            Column("sent late at P99, ms", wide=True),
        ),
        rows=tuple(_overload_row(name, seen) for name, seen in loads),
    )


def _overload_row(name: str, seen: Overloaded) -> tuple[Cell, ...]:
    share, normal_s = seen.goodput_share_of_capacity, seen.afterwards.seconds_to_normal
    return (
        name,
        f"{seen.offered_per_s:,.0f}",
        Strip(f"{share:.0%}", share),
        NONE if seen.accepted_p99_ms is None else figures(seen.accepted_p99_ms),
        "not seen" if normal_s is None else f"{normal_s:.1f}",
        counted(seen.failures),
        f"{seen.generator_late_p99_ms:.1f}",
    )


def _fifty(source: str, fifty: Fifty) -> Table:
    sides = [
        (f"{layout}, {where}", side)
        for layout, companies in fifty.layouts.items()
        for where, side in (("alone", companies.alone), (f"one of {fifty.classifiers}", companies.among))
    ]
    axis = Linear.over(side.p99_ms for _, side in sides)
    each = ", ".join(f"{name} {seen.memory_mib_of_each_additional:.0f} MiB" for name, seen in fifty.layouts.items())
    return Table(
        title="Many classifiers in one repository",
        note=f"one of them asked, the others idle. Each further one takes: {each}. Again: until all answer after the "
        f"server was killed. {ONCE}",
        source=source,
        columns=(
            Column(""),
            Column("ready, s"),
            Column("again, s"),
            Column("MiB"),
            Column("P50, ms"),
            Column("P99, ms", axis=axis),
            Column("failed", wide=True, words=True),
        ),
        rows=tuple(_company_row(name, side) for name, side in sides),
    )


def _company_row(name: str, side: Company) -> tuple[Cell, ...]:
    again_s = side.seconds_from_kill_to_all_answering
    return (
        name,
        f"{side.seconds_to_ready:.1f}",
        NONE if again_s is None else f"{again_s:.1f}",
        f"{side.memory_mib:,.0f}",
        figures(side.p50_ms),
        Strip(figures(side.p99_ms), side.p99_ms),
        counted(side.failed),
    )
