"""Plots P99 against the offered rate, from capacity searches and gates."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.page.verdicts import TONES
from slipway.contract.evidence.latency import CapacityResult, LatencyResult
from slipway.contract.evidence.studies import RobustnessResult
from slipway.pages.charts import GOOD_BACK, PAGE, SERIES, Chart, Svg, axes, limit, logarithmic, styled, svg
from slipway.pages.charts import TONES as COLOURS
from slipway.pages.tables import Tone
from slipway.pages.wording import figures


@dataclass(frozen=True)
class Rate:
    """The result at one rate."""

    rate_per_s: float
    p99_ms: float
    tone: Tone
    says: str
    whole: bool
    """Whether the gate judged the rate in full, so that the verdict counts."""


@dataclass(frozen=True)
class RateLadder:
    """The rates of one server, ascending."""

    name: str
    rates: tuple[Rate, ...]
    colour: int


@dataclass(frozen=True)
class RateLadders:
    """The rates of all servers, on the same axes."""

    ladders: tuple[RateLadder, ...]
    limits_ms: frozenset[float]
    intervals: tuple[tuple[float, float], ...]
    """Intervals from the highest rate that passed to the lowest rate above it that did not."""

    @property
    @styled
    def chart(self) -> Svg:
        chart = axes(8.5, 4)
        for low, high in self.intervals:
            chart.axvspan(low, high, color=GOOD_BACK)
        for ladder in self.ladders:
            points = [(rate.rate_per_s, rate.p99_ms) for rate in ladder.rates]
            chart.plot(*zip(*points, strict=True), color=SERIES[ladder.colour], linewidth=1.2, alpha=0.65)
            for rate in ladder.rates:
                _dot(chart, rate, SERIES[ladder.colour])
        for ms in self.limits_ms:
            limit(chart, ms)
        logarithmic(chart.yaxis)
        chart.set(xlabel="requests/s offered", ylabel="P99, ms")
        chart.set_xlim(left=0)
        return svg(chart, label="P99 in ms against requests per second; the numbers are in the tables")


def _dot(chart: Chart, rate: Rate, colour: str) -> None:
    place = (rate.rate_per_s, rate.p99_ms)
    chart.plot(*place, "o", color=colour, markersize=11, markeredgewidth=0, alpha=0.35)
    face = COLOURS[rate.tone] if rate.whole else PAGE
    (dot,) = chart.plot(*place, "o", markersize=6, markerfacecolor=face, color=COLOURS[rate.tone], zorder=3)
    dot.set_gid(f"tip:{rate.rate_per_s:.1f}/s: P99 {figures(rate.p99_ms)} ms; {rate.says}")


def rates(files: Sequence[ResultFile]) -> RateLadders | None:
    """Collect the rates; None for fewer than two, since one makes no line and is in the percentiles."""
    found = [*_gates(files), *(ladder for file in files for ladder in _ladders(file))]
    if sum(len(seen) for _, seen in found) < 2:
        return None
    gates = [file.result for file in files if isinstance(file.result, LatencyResult | CapacityResult)]
    ladders = [
        RateLadder(name, tuple(sorted(seen, key=lambda rate: rate.rate_per_s)), number % len(SERIES))
        for number, (name, seen) in enumerate(found)
    ]
    intervals = [
        (result.passed_per_s, result.not_passed_per_s)
        for result in gates
        if isinstance(result, CapacityResult) and result.passed_per_s and result.not_passed_per_s
    ]
    return RateLadders(tuple(ladders), frozenset(result.options.limit_ms for result in gates), tuple(intervals))


def _gates(files: Iterable[ResultFile]) -> Iterator[tuple[str, list[Rate]]]:
    """Group gates of one bundle on one machine as the rates of one server."""
    servers: dict[object, list[tuple[str, Rate]]] = {}
    for file in files:
        result = file.result
        if isinstance(result, LatencyResult):
            says = f"{file.name}: {result.verdict}, {result.reason}"
            rate = Rate(result.options.rate_per_s, result.latency.p99_ms, TONES[result.verdict], says, whole=True)
            servers.setdefault((result.options.model, result.bundle, result.machine), []).append((file.name, rate))
    for gates in servers.values():
        yield ", ".join(name for name, _ in gates), [rate for _, rate in gates]


def _ladders(file: ResultFile) -> Iterator[tuple[str, list[Rate]]]:
    result = file.result
    if isinstance(result, CapacityResult):
        yield (
            file.name,
            [
                Rate(rung.rate_per_s, rung.latency.p99_ms, TONES[rung.verdict], rung.verdict, whole=rung.confirms)
                for rung in result.rungs
            ],
        )
    if isinstance(result, RobustnessResult) and result.overload:
        for layout, seen in result.overload.items():
            rungs = [Rate(rung.rate_per_s, rung.p99_ms, "plain", "not judged", whole=False) for rung in seen.ladder]
            yield f"{file.name}, {layout}", rungs
