"""Plots as SVG paths in a square of 100 by 100, y downwards; the template stretches them and adds the text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from slipway.benchmark.page.axes import Logarithmic, Nines
from slipway.benchmark.page.series import Series

BINS_PER_DECADE = 25
FINEST = 0.3
"""Percent of an axis: what is closer than this is one point of a line."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Tails:
    """Latency against percentile, a line for each series."""

    x: Nines
    y: Logarithmic
    lines: tuple[tuple[Series, str], ...]
    limits: tuple[tuple[float, str], ...]
    """Where they lie from the top, and their text."""


@dataclass(frozen=True)
class Distributions:
    """Share of the requests against latency, a strip for each series."""

    x: Logarithmic
    strips: tuple[tuple[Series, str], ...]


def tails(series: Sequence[Series]) -> Tails:
    """Every further nine is as wide as the one before. The k-th of n latencies is at k / (n + 1)."""
    x, y = Nines(max(one.requests for one in series)), _latency_axis(series)
    lines = []
    for one in series:
        shares = np.cumsum(one.counts) / (one.requests + 1)
        points = [(x.at(share), 100 - y.at(ms)) for share, ms in zip(shares, one.values_ms, strict=True)]
        lines.append((one, line(_thinned([(0.0, points[0][1]), *points]))))
    return Tails(x, y, tuple(lines), limits_at(y, _limits_ms(series)))


def distributions(series: Sequence[Series]) -> Distributions:
    """In equal steps of the latency's logarithm; the highest step fills the strip."""
    x = _latency_axis(series)
    edges_ms = np.geomspace(x.low, x.high * (1 + 1e-9), max(2, round(np.log10(x.high / x.low) * BINS_PER_DECADE)))
    strips = []
    for one in series:
        counts, _ = np.histogram(one.values_ms, edges_ms, weights=one.counts)
        heights = np.repeat(100 - 96 * counts / counts.max(), 2)
        edges = [x.at(edge) for edge in np.repeat(edges_ms, 2)[1:-1]]
        strips.append((one, line([(edges[0], 100), *zip(edges, heights, strict=True), (edges[-1], 100)])))
    return Distributions(x, tuple(strips))


def _latency_axis(series: Sequence[Series]) -> Logarithmic:
    ends_ms = [float(ms) for one in series for ms in one.values_ms[[0, -1]]]
    return Logarithmic.over([*_limits_ms(series), *ends_ms])


def _limits_ms(series: Iterable[Series]) -> set[float]:
    return {one.judged.limit_ms for one in series if one.judged}


def limits_at(y: Logarithmic, limits_ms: Iterable[float]) -> tuple[tuple[float, str], ...]:
    """Where each limit lies from the top, and its text."""
    return tuple((100 - y.at(ms), f"limit {ms:g} ms") for ms in sorted(limits_ms))


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Without the points that cannot be told from the one before; the last always stands."""
    kept = [points[0]]
    for x, y in points[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= FINEST:
            kept.append((x, y))
    return [*kept, points[-1]]


def line(points: Iterable[Point]) -> str:
    """The path through the points."""
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
