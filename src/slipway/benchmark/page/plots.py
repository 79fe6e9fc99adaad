"""Draws latencies: the tails of all series in one chart, and the distribution of each."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from slipway.benchmark.page.series import Series
from slipway.pages.charts import DIM, LIMIT, SERIES, TEXT, Svg, axes, limit, logarithmic, styled, svg

BINS_PER_DECADE = 25
NINES = ("P50", "P90", "P99", "P99.9", "P99.99", "P99.999")


@styled
def tails(series: Sequence[Series]) -> Svg:
    """Plot latency against percentile, one line per series; every nine is equally wide."""
    chart, most = axes(8.5, 4), max(one.requests for one in series)
    for one in series:
        shares, values_ms = tail(one)
        style = "-" if one.judged else "--"
        chart.plot(1 / (1 - shares), values_ms, color=SERIES[one.colour], linestyle=style, linewidth=1.8)
    chart.axvline(100, color=DIM, linewidth=1, linestyle=":")
    for ms in limits_ms(series):
        limit(chart, ms)
    logarithmic(chart.yaxis)
    ticks = [(1 / (1 - float(name[1:]) / 100), name) for name in NINES]
    shown = [(at, name) for at, name in ticks if at <= most + 1]
    chart.set(xscale="log", xlim=(1, most + 1), ylabel="latency, ms", xlabel="percentile of the requests")
    chart.set_xticks(*zip(*shown, strict=True))
    chart.minorticks_off()
    return svg(chart, label="Latency in ms by percentile; the numbers are in the table below")


def tail(one: Series) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return shares of the requests, from 0 up, and the latency in ms that bounds each; k of n are k / (n + 1)."""
    shares = np.cumsum(one.counts) / (one.requests + 1)
    return np.array([0.0, *shares]), np.array([one.values_ms[0], *one.values_ms])


@styled
def hills(series: Sequence[Series]) -> list[Svg]:
    """Plot the share of requests against log latency in equal steps, each chart scaled to its highest step."""
    if not series:
        return []
    ends_ms = [float(ms) for one in series for ms in one.values_ms[[0, -1]]] + sorted(limits_ms(series))
    low, high = min(ends_ms) / 1.05, max(ends_ms) * 1.05
    edges_ms = np.geomspace(low, high, max(2, round(np.log10(high / low) * BINS_PER_DECADE)))
    found = []
    for one in series:
        chart, colour = axes(5, 0.65), SERIES[one.colour]
        counts, _ = np.histogram(one.values_ms, edges_ms, weights=one.counts)
        chart.stairs(counts / counts.max(), edges_ms, fill=True, color=colour, alpha=0.35)
        chart.stairs(counts / counts.max(), edges_ms, color=colour, linewidth=1.2)
        chart.vlines((one.latency.p50_ms, one.latency.p99_ms), 0, 0.3, color=TEXT, linewidth=1.2)
        if one.judged:
            chart.axvline(one.judged.limit_ms, **LIMIT)
        logarithmic(chart.xaxis)
        chart.xaxis.set_major_formatter("{x:,g} ms")
        chart.set(xlim=(low, high), ylim=(0, 1.05), yticks=[])
        found.append(svg(chart, label=f"Distribution of {one.name}"))
    return found


def limits_ms(series: Iterable[Series]) -> set[float]:
    return {one.judged.limit_ms for one in series if one.judged}
