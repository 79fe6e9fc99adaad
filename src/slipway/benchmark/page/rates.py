"""P99 against the offered rate: what each rate showed, of searches for the capacity and of gates."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from slipway.benchmark.page.axes import Linear, Logarithmic
from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.page.plots import limits_at, line
from slipway.benchmark.page.series import COLOURS
from slipway.benchmark.page.tones import TONES, Tone
from slipway.contract.evidence.latency import CapacityResult, GateResult
from slipway.contract.evidence.studies import RobustnessResult


@dataclass(frozen=True)
class Rate:
    """What one rate showed."""

    rate_per_s: float
    p99_ms: float
    tone: Tone
    says: str
    whole: bool
    """Judged as the gate does, so that the verdict counts."""


@dataclass(frozen=True)
class Ladder:
    """Rates of one server, ascending, and the line through them."""

    name: str
    rates: tuple[Rate, ...]
    path: str
    colour: int


@dataclass(frozen=True)
class Rates:
    """All of them on the same axes."""

    x: Linear
    y: Logarithmic
    ladders: tuple[Ladder, ...]
    limits: tuple[tuple[float, str], ...]
    intervals: tuple[tuple[float, float], ...]
    """From the highest rate that passed to the lowest above it that did not, in percent of the axis."""


def rates(files: Sequence[ResultFile]) -> Rates | None:
    """None where fewer than two rates are known: one is no line, and stands in the percentiles."""
    found = [*_gates(files), *(ladder for file in files for ladder in _ladders(file))]
    together = [rate for _, seen in found for rate in seen]
    if len(together) < 2:
        return None
    gates = [file.result for file in files if isinstance(file.result, GateResult | CapacityResult)]
    limits_ms = {result.options.limit_ms for result in gates}
    x = Linear.over(rate.rate_per_s for rate in together)
    y = Logarithmic.over([*(rate.p99_ms for rate in together), *limits_ms])
    ladders = []
    for number, (name, seen) in enumerate(found):
        ascending = tuple(sorted(seen, key=lambda rate: rate.rate_per_s))
        path = line((x.at(rate.rate_per_s), 100 - y.at(rate.p99_ms)) for rate in ascending)
        ladders.append(Ladder(name, ascending, path, number % COLOURS))
    intervals = [
        (x.at(result.passed_per_s), x.at(result.not_passed_per_s))
        for result in gates
        if isinstance(result, CapacityResult) and result.passed_per_s and result.not_passed_per_s
    ]
    return Rates(x, y, tuple(ladders), limits_at(y, limits_ms), tuple(intervals))


def _gates(files: Iterable[ResultFile]) -> Iterator[tuple[str, list[Rate]]]:
    """Gates of one bundle on one machine are rates of one server."""
    servers: dict[object, list[tuple[str, Rate]]] = {}
    for file in files:
        result = file.result
        if isinstance(result, GateResult):
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
