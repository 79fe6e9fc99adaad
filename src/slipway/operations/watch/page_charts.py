"""The charts of the watch's page. Three take 0.2 s of a CPU, so they are drawn again after half a minute only."""

from dataclasses import dataclass

from slipway.operations.watch.facts import Drift, Facts, Histogram
from slipway.pages.charts import LIMIT, PAGE, SERIES, TONES, Svg, axes, in_percent, styled, svg

DRAWN_S = 30.0
"""Seconds for which charts are shown before they are drawn again, unless an alarm comes or goes."""
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class Drawn:
    """The charts of a classifier, as they were drawn."""

    looked_s: float
    alarms: bool
    evidence: Svg | None
    confidence: Svg | None
    brightness: Svg | None


class Charts:
    """The charts of every classifier."""

    def __init__(self) -> None:
        self._drawn: dict[str, Drawn] = {}

    def of(self, facts: Facts, *, name: str) -> Drawn:
        """The charts of these facts, or recent ones; `name` is the classifier's, as it is shown."""
        drawn = self._drawn.get(facts.classifier)
        if drawn is None or drawn.alarms != facts.alarms or not 0 <= facts.looked_s - drawn.looked_s < DRAWN_S:
            drawn = self._drawn[facts.classifier] = _draw(facts, name)
        return drawn


def _draw(facts: Facts, name: str) -> Drawn:
    found = facts.watched
    drift = found.drift if found else None
    return Drawn(
        facts.looked_s,
        facts.alarms,
        evidence(drift, label=f"Evidence of drift of {name}") if drift and drift.history else None,
        _distribution(found.confidence, label=f"Confidence of {name}", of="confidence") if found else None,
        _distribution(found.inputs.brightness, label=f"Brightness of {name}", of="mean brightness of an image")
        if found
        else None,
    )


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


def _distribution(histogram: Histogram, *, label: str, of: str) -> Svg | None:
    return distribution(histogram, label=label, of=of) if sum(histogram.latest) else None


@styled
def distribution(histogram: Histogram, *, label: str, of: str) -> Svg:
    """Plot the share of rows by a measure between 0 and 1: the latest ones as bars, and the test split as a line.

    Args:
        of: the measure in words.
    """
    chart = axes(5.2, 2.3)
    edges = list(histogram.edges)
    chart.stairs(_shares(histogram.latest), edges, fill=True, color=SERIES[0], alpha=0.35)
    if sum(histogram.reference):
        chart.stairs(_shares(histogram.reference), edges, color=PAGE, linewidth=3)
        chart.stairs(_shares(histogram.reference), edges, color=SERIES[1], linewidth=1.6)
    in_percent(chart.yaxis)
    chart.set(xlim=(0, 1), xlabel=of, ylabel="share of the rows")
    return svg(chart, label=label)


def _shares(counts: tuple[int, ...]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _unit(span_s: float) -> tuple[float, str]:
    for unit_s, unit in ((_DAY_S, "days"), (_HOUR_S, "hours"), (_MINUTE_S, "minutes")):
        if span_s >= 2 * unit_s:
            return unit_s, unit
    return 1.0, "seconds"
