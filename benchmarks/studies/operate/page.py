"""Draws the pictures of `make operate` on one page."""

from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.studies.operate.result import OperateResult
from benchmarks.studies.operate.story import Told
from slipway.pages import environment
from slipway.pages.charts import DIM, SERIES, TEXT, TONES, Chart, Svg, axes, in_percent, styled, svg
from slipway.pages.tables import Table, table
from slipway.system.targets import write_file

WINDOW = 150
"""Answers of which each point of the accuracy is the mean."""
BLOCK_S = 2.0
SHOWN = {
    "shifted": "nines appear",
    "alarm": "alarm",
    "labelled": "labelled",
    "canary": "half for the new head",
    "after": "promoted",
    "tenth": "a tenth for a spoilt head",
    "rolled back": "rolled back",
}


def write_page(told: Told, result: OperateResult, out: Path) -> None:
    """Write the page to `out`."""
    page = environment("benchmarks.studies.operate").get_template("operate.html")
    text = page.render(
        title="Life after deployment",
        parts=[("accuracy", "Accuracy"), ("evidence", "Evidence"), ("heads", "Who answered"), ("steps", "Steps")],
        result=result,
        accuracy=accuracy_over_time(told),
        evidence=evidence_over_time(told),
        answered=answered_over_time(told),
        steps=_steps(result),
        marks=[(name, told.marks_s[key]) for key, name in SHOWN.items()],
        window=WINDOW,
    )
    write_file(out, text)


@styled
def accuracy_over_time(told: Told) -> Svg:
    """Draw the running share of right answers, by the truth that the clients know, and the watch's estimate of it."""
    found = sorted(told.answers, key=lambda one: one.sent_s)
    correct = np.array([one.is_correct for one in found], dtype=np.float64)
    times_s = np.array([one.sent_s for one in found])
    running = np.convolve(correct, np.ones(WINDOW) / WINDOW, mode="valid")
    chart = axes(8.5, 3)
    chart.plot(times_s[WINDOW - 1 :], running, color=SERIES[0], linewidth=1.6)
    estimate, at_s = told.estimate, told.marks_s["labelled"]
    chart.plot([at_s, at_s], [estimate.low, estimate.high], color=SERIES[1], linewidth=3, solid_capstyle="butt")
    chart.plot(at_s, estimate.value, "o", color=SERIES[1], markersize=6)
    chart.text(at_s, estimate.high, " the watch's estimate", color=SERIES[1], va="bottom")
    chart.set(ylim=(min(running.min(), estimate.low) - 0.03, 1.04), ylabel="right answers", xlabel="seconds")
    in_percent(chart.yaxis)
    _mark(chart, told)
    return svg(chart, label="Accuracy over time")


@styled
def evidence_over_time(told: Told) -> Svg:
    """Draw the evidence of a change, against the threshold of the alarm."""
    drift = told.drift
    chart = axes(8.5, 2.4)
    rows = [point.row for point in drift.history]
    chart.plot(rows, [point.log10_evidence for point in drift.history], color=SERIES[0], linewidth=1.6)
    chart.axhline(drift.log10_threshold, color=TONES["bad"], linewidth=1, linestyle=(0, (4, 3)))
    chart.text(
        0.005, drift.log10_threshold, " alarm", transform=chart.get_yaxis_transform(), color=TONES["bad"], va="bottom"
    )
    chart.set(ylabel="log10 of the evidence", xlabel="sampled images since the watch began")
    return svg(chart, label="Evidence of drift by the number of sampled images")


@styled
def answered_over_time(told: Told) -> Svg:
    """Draw the share of requests that each head answered."""
    last_s = max(one.sent_s for one in told.answers)
    edges = np.arange(0, last_s + BLOCK_S, BLOCK_S)
    names = list(told.heads.values())
    counts = {name: Counter[int]() for name in names}
    for one in told.answers:
        if one.bundle in told.heads:
            counts[told.heads[one.bundle]][int(one.sent_s // BLOCK_S)] += 1
    table_bn = np.array([[counts[name][block] for block in range(len(edges))] for name in names], dtype=np.float64)
    shares = table_bn / np.maximum(table_bn.sum(axis=0), 1)
    chart = axes(8.5, 2.4)
    chart.stackplot(edges, shares, labels=names, colors=SERIES[: len(names)], alpha=0.75)
    chart.set(ylim=(0, 1.12), ylabel="answers", xlabel="seconds")
    in_percent(chart.yaxis)
    chart.legend(loc="upper left", ncols=3, frameon=False, labelcolor=TEXT, bbox_to_anchor=(0, 1.22))
    _mark(chart, told)
    return svg(chart, label="Share of the answers of each head over time")


def _mark(chart: Chart, told: Told) -> None:
    """Mark each event with a line and a number; the list below the charts names the events."""
    _, high = chart.get_ylim()
    for number, name in enumerate(SHOWN, start=1):
        at_s = told.marks_s[name]
        chart.axvline(at_s, color=DIM, linewidth=0.8, linestyle=":")
        chart.text(at_s, high, f"{number}", color=TEXT, ha="center", va="top")


def _steps(result: OperateResult) -> Table:
    rows = [(name, f"{seconds:.1f}") for name, seconds in result.steps_s.items()]
    return table("Steps", "seconds of each verb; servers and clients ran beside it.", ("verb", "seconds"), rows)
