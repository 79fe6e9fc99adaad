"""The figures of the study `watch` in the documents are those of its result."""

import re
from pathlib import Path

from benchmarks.studies.watch.accuracy import Estimated
from benchmarks.studies.watch.drifts import Drifted, WatchedNetwork
from benchmarks.studies.watch.networks import BRIGHTNESS, FOREIGN_NAME
from benchmarks.studies.watch.result import WatchResult

ROOT = Path(__file__).parents[2]
RESULT = WatchResult.read(ROOT / "benchmarks/results/watch.json")
PAGE = (ROOT / "docs/watch.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of the page's table whose first line begins so."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def of(network: WatchedNetwork, stream: str) -> Drifted:
    return next(one for one in network.streams if one.stream == stream)


def rows(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f}"


def harmless() -> list[Drifted]:
    return [one for network in RESULT.networks for one in network.streams if one.bar.startswith("costs no accuracy")]


def delays(network: WatchedNetwork, stream: str) -> str:
    found = of(network, stream)
    both = f"{rows(found.median_rows)}, {rows(found.p95_rows)}"
    return both if found.met else f"**{both}** ({found.alarms:.0%} alarm within {found.rows:,})".replace("%", " %")


def test_the_networks_delays_are_those_of_the_result() -> None:
    for network, cells in zip(RESULT.networks, table("network"), strict=True):
        unchanged, dark = of(network, "unchanged"), of(network, BRIGHTNESS)
        assert dark.lost_points is not None
        alarms = f"({unchanged.alarms * RESULT.runs:.0f} of {RESULT.runs:,} streams)"
        assert cells == [
            f"{network.name}: {network.described.removesuffix('; logistic regression')}",
            f"{100 * network.accuracy:.1f} %",
            f"{network.false_alarms_per_30_days:.2f} {alarms}",
            f"{-dark.lost_points:.1f} points, {delays(network, BRIGHTNESS)}",
            delays(network, FOREIGN_NAME),
        ]
    streams = [(stream, network) for stream in (BRIGHTNESS, FOREIGN_NAME) for network in RESULT.networks]
    for (stream, network), cells in zip(streams, table("median rows until the alarm"), strict=True):
        found = of(network, stream)
        assert cells[0] == f"{stream}, {network.name}"
        assert cells[2:] == [rows(one) for one in (found.median_rows, found.long_median_rows, found.oracle_rows)]


def test_a_missed_bar_of_the_accuracy_is_bold_and_every_width_by_200_labels_is_judged() -> None:
    def shown(value: str, *, met: bool) -> str:
        return value if met else f"**{value}**"

    def cells_of(one: Estimated) -> list[str]:
        width_met = one.half_width <= 0.04 or not one.width_judged
        return [
            str(one.labels),
            f"{100 * one.accuracy:.1f} %",
            shown(f"{100 * one.covered:.1f} %", met=one.covered >= 0.93),
            shown(f"{100 * one.half_width:.2f}", met=width_met),
            f"{100 * one.alarms:.1f} %",
        ]

    assert all(one.width_judged == (one.labels >= 200) for one in RESULT.accuracy)
    assert [cells[1:] for cells in table("stream")] == [cells_of(one) for one in RESULT.accuracy]


def test_mild_shifts_ran_as_often_as_the_others_and_are_described_as_they_went() -> None:
    most = max(one.alarms for one in harmless())
    assert all(round(one.alarms * RESULT.runs, 6).is_integer() for one in harmless())
    assert f"{len(harmless())} such shifts are: at most {100 * most:.1f} % of their streams alarm" in PAGE
    assert f"{RESULT.runs:,} runs of each stream" in PAGE
    costly = [of(network, "noise of 1 level") for network in RESULT.networks[:2]]
    lost = [one.lost_points for one in costly if one.lost_points is not None]
    assert f"costs *lite0, digits* {lost[0]:.1f} points, and *lite0, photographs* {lost[1]:.1f}" in PAGE
    assert f"after {rows(costly[0].median_rows)} and {rows(costly[1].median_rows)} rows in the median" in PAGE


def test_the_rows_of_the_benchmarks_are_those_of_the_result() -> None:
    alarms = sum(of(network, "unchanged").alarms * RESULT.runs for network in RESULT.networks)
    drift = next(line for line in BENCHMARKS.splitlines() if line.startswith("| drift,"))
    met = [of(network, FOREIGN_NAME).median_rows for network in RESULT.networks if of(network, FOREIGN_NAME).met]
    dark = [of(network, BRIGHTNESS).median_rows for network in RESULT.networks]
    known = [[one for one in found if one is not None] for found in (met, dark)]
    for figures in (
        f"| {alarms:.0f} of {RESULT.runs * len(RESULT.networks):,} unchanged streams alarm",
        f"after {min(known[0]):.0f} to {max(known[0]):.0f} rows by three networks (target: 200) and **missed** by one",
        f"darker images after {min(known[1]):.0f} to {max(known[1]):.0f} (target: 50)",
        f"at most {100 * max(one.alarms for one in harmless()):.1f} % of the streams",
    ):
        assert figures in drift, figures
    judged = [one for one in RESULT.accuracy if one.width_judged]
    line = next(line for line in BENCHMARKS.splitlines() if line.startswith("| accuracy by 200 labels"))
    covered, widths = ([100 * getattr(one, name) for one in judged] for name in ("covered", "half_width"))
    assert f"{min(covered):.1f} to {max(covered):.1f} % of the intervals hold it (target: 93 %)" in line
    assert f"half-width {min(widths):.2f} to {max(widths):.2f} points (target: 4)" in line
    assert bool(re.search(r"\*\*missed\*\*", line)) != all(one.met for one in judged)
