"""Makes the tables of sides measured in one run, and of the verdict's errors on simulated servers."""

from collections.abc import Iterable, Iterator, Mapping

from scipy.stats import binomtest

from slipway.benchmark.page.capacities import efficiency, peers
from slipway.benchmark.page.files import ResultFile
from slipway.contract.evidence.studies import (
    Company,
    EfficiencyResult,
    Fifty,
    Kill,
    Overload,
    Overloaded,
    PeersResult,
    Reload,
    RobustnessResult,
    VerdictResult,
)
from slipway.pages.tables import Cell, Column, Scale, Strip, Table, Tone, table
from slipway.pages.wording import NONE, counted, decimals, figures, percent

ONCE = "Measured once: one run has no interval of its own."


def comparisons(files: Iterable[ResultFile]) -> list[Table]:
    """Make the tables in the order of the files."""
    return [table for file in files for table in _tables(file)]


def _tables(file: ResultFile) -> Iterator[Table]:
    result = file.result
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


def _verdict(source: str, result: VerdictResult) -> Table:
    limits = [server.allowed for server in result.servers if server.allowed]
    judged = [server for server in result.servers if server.allowed is not None]
    highs = [share_interval(s.passes["at the limit"].rule, of=result.runs)[1] for s in judged]
    axis = Scale.over([100 * value for value in (*limits, *highs)])
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
    return table(
        "How often the verdict errs",
        f"{result.runs:,} simulated runs of each server: the percentage that passes falsely, with the true P99 on the "
        "limit, its 95 % interval and the allowed share; and the percentage that passes rightly, with a lower P99, and "
        f"the mean length of a run, at most {result.minutes:g} minutes. Without a dashed line, a server is not judged. "
        "An arrow points beyond the axis.",
        ("server", "load", "requests/s", Column("passes falsely", axis=axis), *places),
        rows,
        source=source,
        wide=places,
    )


def share_interval(share: float, *, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share counted in `of` independent trials, by Wilson's score."""
    found = binomtest(round(share * of), of).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def _reload(source: str, seen: Reload) -> Table:
    axis = Scale.over([seen.p99_ms, seen.p99_ms_without_reloads])
    rows = (
        _reload_row("without", seen.p99_ms_without_reloads, seen.failed_without_reloads, seen.requests),
        _reload_row(f"{seen.reloads} reloads", seen.p99_ms, seen.failed, seen.requests),
    )
    return table(
        "Reloads under load",
        f"{seen.rate_per_s:g} requests/s, {seen.requests:,} requests without reloads and as many with; the slowest "
        f"reload took {seen.reload_seconds_max:.1f} s. Answers that mix two bundles: {seen.mixed}; answers from "
        f"neither: {seen.answers_of_no_version}. In brackets: the 95 % interval of the failed share. {ONCE}",
        ("", Column("P99, ms", axis=axis), "failed", "why"),
        rows,
        source=source,
        words=("failed", "why"),
    )


def _reload_row(name: str, p99_ms: float, failed: Mapping[str, int], requests: int) -> tuple[Cell, ...]:
    count = sum(failed.values())
    low, high = share_interval(count / requests, of=requests)
    return name, Strip(figures(p99_ms), p99_ms), f"{count:,} ({percent(low)} to {percent(high)})", counted(failed)


def _kills(source: str, kills: Mapping[str, Kill]) -> Table:
    axis = Scale.over(kill.seconds_until_the_last_error for kill in kills.values())
    rows: list[tuple[Cell, ...]] = []
    for what, kill in kills.items():
        first, last = kill.seconds_to_first_right_answer, kill.seconds_until_the_last_error
        lost = f"{sum(kill.lost.values()):,} of {kill.requests:,}"
        strip = Strip(f"{last:.2f}", last)
        rows.append((what, "never" if first is None else f"{first:.2f}", strip, lost, counted(kill.lost)))
    return table(
        "Killed processes",
        f"under load: seconds from the kill to the first right answer, and to the last error. {ONCE}",
        ("killed", "first right, s", Column("last error, s", axis=axis), "lost", "why"),
        rows,
        source=source,
        words=("why",),
        wide=("why",),
    )


def _overload(source: str, layouts: Mapping[str, Overload]) -> Table:
    loads = [
        (f"{layout}, {times} ×", seen)  # noqa: RUF001 the sign of multiplication
        for layout, overload in layouts.items()
        for times, seen in ((3, overload.three), (10, overload.ten))
    ]
    capacities = ", ".join(f"{layout} {overload.capacity_per_s:.0f}/s" for layout, overload in layouts.items())
    axis = Scale.over([1.0, *(seen.goodput_share_of_capacity for _, seen in loads)])
    right = Column("right, of the capacity", axis=axis, origin=1.0)
    return table(
        "Overload",
        f"for 30 s at 3 and 10 times the capacity ({capacities}): right answers as a share of capacity, P99 of "
        f"accepted requests, and seconds until a light load is served normally again. {ONCE}",
        ("", "offered/s", right, "accepted P99, ms", "recovers, s", "refused or failed", "sent late at P99, ms"),
        [_overload_row(name, seen) for name, seen in loads],
        source=source,
        words=("refused or failed",),
        wide=("refused or failed", "sent late at P99, ms"),
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
    axis = Scale.over(side.p99_ms for _, side in sides)
    each = ", ".join(f"{name} {seen.memory_mib_of_each_additional:.0f} MiB" for name, seen in fifty.layouts.items())
    return table(
        "Many classifiers in one repository",
        f"one classifier under load, the others idle. Each further one takes {each}. Again: seconds until all answer "
        f"after the server was killed. {ONCE}",
        ("", "ready, s", "again, s", "MiB", "P50, ms", Column("P99, ms", axis=axis), "failed"),
        [_company_row(name, side) for name, side in sides],
        source=source,
        words=("failed",),
        wide=("failed",),
    )


def _company_row(name: str, side: Company) -> tuple[Cell, ...]:
    ready, again = decimals(side.seconds_to_ready, 1), decimals(side.seconds_from_kill_to_all_answering, 1)
    p99 = Strip(figures(side.p99_ms), side.p99_ms)
    return name, ready, again, f"{side.memory_mib:,.0f}", figures(side.p50_ms), p99, counted(side.failed)
