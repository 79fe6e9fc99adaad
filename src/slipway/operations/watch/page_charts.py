"""The charts of the watch's page. A chart takes 40 to 90 ms, so the latest ones are kept."""

from functools import lru_cache

from slipway.operations.watch.facts import Drift, Histogram
from slipway.pages.charts import LIMIT, PAGE, SERIES, TONES, Svg, axes, in_percent, styled, svg

MOST_KEPT = 64
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0


@lru_cache(MOST_KEPT)
@styled
def evidence(drift: Drift, *, label: str) -> Svg:
    """Plot the evidence of drift against the time before its last point, with the threshold of the alarm."""
    chart = axes(5.2, 2.3)
    last_s = drift.history[-1].time_s
    span_s = last_s - drift.history[0].time_s
    unit_s, unit = _unit(span_s)
    times = [(point.time_s - last_s) / unit_s for point in drift.history]
    chart.plot(times, [point.log10_evidence for point in drift.history], color=SERIES[0], linewidth=1.6)
    chart.plot(times[-1:], [drift.history[-1].log10_evidence], "o", color=SERIES[0], markersize=4)
    threshold = drift.log10_threshold
    chart.axhline(threshold, **LIMIT)
    chart.text(0.01, threshold, "alarm", transform=chart.get_yaxis_transform(), color=TONES["bad"], va="bottom")
    most = max(threshold, *(point.log10_evidence for point in drift.history))
    least = min(0.0, *(point.log10_evidence for point in drift.history))
    chart.set(ylim=(least - 0.05 * most, 1.2 * most), xlabel=f"{unit} before the last row", ylabel="log10 of evidence")
    return svg(chart, label=label)


@lru_cache(MOST_KEPT)
@styled
def confidences(histogram: Histogram, *, label: str) -> Svg:
    """Plot the share of rows by confidence: the latest ones as bars, and the reference as a line."""
    chart = axes(5.2, 2.3)
    edges = list(histogram.edges)
    chart.stairs(_shares(histogram.latest), edges, fill=True, color=SERIES[0], alpha=0.35)
    if histogram.reference:
        chart.stairs(_shares(histogram.reference), edges, color=PAGE, linewidth=3)
        chart.stairs(_shares(histogram.reference), edges, color=SERIES[1], linewidth=1.6)
    in_percent(chart.yaxis)
    chart.set(xlim=(0, 1), xlabel="confidence", ylabel="share of the rows")
    return svg(chart, label=label)


def _shares(counts: tuple[int, ...]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _unit(span_s: float) -> tuple[float, str]:
    for unit_s, unit in ((_DAY_S, "days"), (_HOUR_S, "hours"), (_MINUTE_S, "minutes")):
        if span_s >= 2 * unit_s:
            return unit_s, unit
    return 1.0, "seconds"
