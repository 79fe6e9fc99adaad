"""The live page of the watch: every classifier in one table, and the busiest and those with an alarm in detail."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.operations.journal.status import time_text
from slipway.operations.watch.facts import Facts, Histogram, Interval, Latency, Watched
from slipway.operations.watch.page_charts import confidences, evidence
from slipway.pages import environment
from slipway.pages.charts import Svg
from slipway.pages.tables import Badge, Cell, Column, Scale, Strip, Table, table
from slipway.pages.wording import NONE, figures, percent, thousands
from slipway.system.text import shown

REFRESH_S = 5
MOST_DETAILS = 12
"""Classifiers with charts: those with an alarm first, then by rows."""
MOST_CLASSES = 50
RECENT_S = 600.0
"""The rate of requests, and the share over the budget, are those of this time."""
TITLE = "Watch"


@dataclass(frozen=True)
class Price:
    """What the machine costs."""

    per_hour: float
    currency: str
    about: str
    """Which machine, as of when, and where the number comes from."""


@dataclass(frozen=True)
class Recent:
    """Requests of one classifier at the gateway in the last ten minutes, or since the page was first made."""

    per_second: float
    requests: int
    over_budget: int | None
    """Requests over the latency budget; None if the gateway does not count at the budget."""

    @property
    def is_over(self) -> bool:
        """Whether more than 1 % are over the budget, beyond what chance explains; as the alert SlipwayOverBudget."""
        expected = 0.01 * self.requests
        return self.over_budget is not None and self.over_budget > expected + 3 * expected**0.5 + 1


@dataclass(frozen=True)
class Todo:
    """What somebody must do."""

    classifier: str
    what: str
    tone: str
    runbook: str
    """The alert's section of docs/runbook.md, or nothing."""


@dataclass(frozen=True)
class Detail:
    """One classifier with its charts and tables."""

    number: int
    facts: Facts
    name: str
    evidence: Svg | None
    confidence: Svg | None
    classes: Table | None
    inputs: Table | None


class LivePage:
    """`page` for a server: it remembers counters for rates, and makes each page once, whoever asks."""

    def __init__(self, facts: Callable[[], Sequence[Facts]], *, price: Price | None = None) -> None:
        self._facts, self._price = facts, price
        self._readings: dict[str, deque[tuple[float, Latency]]] = {}
        self._made: tuple[Sequence[Facts], str] | None = None
        self._lock = threading.Lock()  # matplotlib's settings are those of the process

    def __call__(self) -> str:
        """The HTML of the present facts; any thread may ask."""
        with self._lock:
            facts = self._facts()
            if self._made is None or self._made[0] is not facts:
                for one in facts:
                    self._read(one)
                self._made = facts, page(facts, price=self._price, recent=self._recent())
            return self._made[1]

    def _read(self, facts: Facts) -> None:
        kept = self._readings.setdefault(facts.classifier, deque())
        if facts.latency is None:
            return
        if kept and facts.latency.requests < kept[-1][1].requests:  # the gateway was started again
            kept.clear()
        kept.append((facts.looked_s, facts.latency))
        while len(kept) > 2 and kept[1][0] <= facts.looked_s - RECENT_S:
            kept.popleft()

    def _recent(self) -> dict[str, Recent]:
        found = {}
        for name, kept in self._readings.items():
            if len(kept) < 2 or kept[-1][0] <= kept[0][0]:
                continue
            (began_s, began), (ended_s, ended) = kept[0], kept[-1]
            requests, over = ended.requests - began.requests, None
            if began.over_budget is not None and ended.over_budget is not None:
                over = max(0, ended.over_budget - began.over_budget)
            found[name] = Recent(requests / (ended_s - began_s), requests, over)
        return found


def page(facts: Sequence[Facts], *, price: Price | None = None, recent: dict[str, Recent] | None = None) -> str:
    """The page of these facts, self-contained, which asks for itself again every five seconds.

    Args:
        price: of the machine; without it no cost is shown.
        recent: requests by classifier; without them the rate, and so the cost, is unknown.

    Names, labels and sentences are untrusted: Jinja escapes all of them.
    """
    recent = recent or {}
    ordered = sorted(facts, key=lambda one: (not one.alarms, -one.rows, one.classifier))
    details = [detail(number, one) for number, one in enumerate(ordered[:MOST_DETAILS])]
    context: dict[str, Any] = {
        "title": TITLE,
        "parts": [
            ("todo", "To do"),
            ("classifiers", "Classifiers"),
            *((f"c{one.number}", one.name) for one in details),
        ],
        "refresh_s": REFRESH_S,
        "looked": time_text(max(one.looked_s for one in facts)) if facts else NONE,
        "facts": facts,
        "alarms": sum(one.alarms for one in facts),
        "rows": sum(one.rows for one in facts),
        "asked": sum(one.labels_asked for one in facts),
        "given": sum(one.labels_given for one in facts),
        "per_second": sum(one.per_second for one in recent.values()) if recent else None,
        "cost": cost_sentence(price, recent),
        "price": price,
        "todos": [todo for one in ordered for todo in todos(one, recent.get(one.classifier))],
        "overview": overview(ordered, recent) if facts else None,
        "details": details,
        "left_out": max(0, len(facts) - MOST_DETAILS),
    }
    return environment("slipway.operations.watch").get_template("watch.html").render(context)


def cost_sentence(price: Price | None, recent: dict[str, Recent]) -> str | None:
    """The cost of a million requests at the present rate: the price of an hour ÷ the requests of an hour.

    None without a price, and without requests.
    """
    per_second = sum(one.per_second for one in recent.values())
    if price is None or per_second <= 0:
        return None
    return f"{figures(price.per_hour / (per_second * 3600) * 1e6, 2)} {price.currency}"


def todos(facts: Facts, recent: Recent | None = None) -> list[Todo]:
    """Each alarm, and each sentence of the watch."""
    name, found = shown(facts.classifier), facts.watched
    lost = [one for one in found.recalls if one.alarm] if found else []
    alarms = {
        "slipwaydrift": bool(found and found.drift and found.drift.alarm),
        "slipwayaccuracylost": bool(found and found.accuracy.alarm),
        "slipwayrecalllost": bool(lost),
    }
    on = [section for section, is_on in alarms.items() if is_on]
    said = []
    for sentence in facts.told:
        is_alarm = sentence.startswith("alarm: ")
        section = on.pop(0) if is_alarm and on else ""
        said.append(Todo(name, sentence.removeprefix("alarm: "), "bad" if is_alarm else "plain", section))
    if recent is not None and recent.is_over:
        what = "P99 is over the latency budget in the last ten minutes; find the slow step, lower the rate, or add CPUs"
        said.append(Todo(name, what, "bad", "slipwayoverbudget"))
    return said


def overview(facts: Sequence[Facts], recent: dict[str, Recent]) -> Table:
    """A row for each classifier."""
    evidence_axis = Scale.over([1.2, *(_evidence_share(one) or 0.0 for one in facts)], most=2.0)
    accuracy_axis = Scale.over([100.0])
    columns = (
        "Classifier",
        Column("P99 and its budget", words=True),
        Column("Confidence, reference", wide=True),
        Column("Evidence of drift ÷ alarm", axis=evidence_axis),
        Column("Accuracy, %", axis=accuracy_axis),
        Column("Labels given, asked", wide=True),
        "Rows",
        Column("State", words=True),
    )
    note = "the dashed line is the alarm, or the accuracy on the test split; a range is the 95 % interval."
    rows = [_row(one, recent.get(one.classifier)) for one in facts]
    return table("Classifiers", note, columns, rows)


def _row(facts: Facts, recent: Recent | None) -> tuple[Cell, ...]:
    found = facts.watched
    return (
        shown(facts.classifier),
        latency_text(facts.latency, recent),
        _confidence(found),
        _drift_cell(facts),
        _accuracy_cell(found),
        f"{thousands(facts.labels_given)}, {thousands(facts.labels_asked)}",
        thousands(facts.rows),
        _state(facts),
    )


def latency_text(latency: Latency | None, recent: Recent | None) -> str:
    """P99 as the edge of its bucket, its budget, and the share over the budget."""
    if latency is None or not latency.requests:
        return "no request yet" if latency else "the gateway does not answer"
    p99 = f"at most {latency.p99_ms:g} ms" if latency.p99_ms is not None else "over the last edge"
    now = ""
    if recent is not None and recent.requests and recent.over_budget is not None:
        now = f"; {percent(recent.over_budget / recent.requests)} over it now"
    over = f"; {percent(latency.over_budget / latency.requests)} over it" if latency.over_budget is not None else ""
    return f"{p99}, budget {latency.budget_ms:g} ms{now or over}"


def _state(facts: Facts) -> Badge:
    if facts.alarms:
        return Badge("alarm", "bad")
    if facts.watched is None:
        return Badge("not watched", "warn")
    return Badge("no alarm", "good")


def _evidence_share(facts: Facts) -> float | None:
    drift = facts.watched.drift if facts.watched else None
    if drift is None or drift.log10_evidence is None or not drift.log10_threshold:
        return None
    return max(0.0, drift.log10_evidence / drift.log10_threshold)


def _drift_cell(facts: Facts) -> Cell:
    share = _evidence_share(facts)
    if share is None or facts.watched is None or facts.watched.drift is None:
        return Badge("not watched", "plain")
    tone = "bad" if facts.watched.drift.alarm else "plain"
    return Strip(f"{share:.0%}", share, limit=1.0, tone=tone)  # type: ignore[arg-type]


def _accuracy_cell(found: Watched | None) -> Cell:
    if found is None or found.accuracy.estimate is None:
        return Badge("no labels", "plain")
    estimate, tone = found.accuracy.estimate, "bad" if found.accuracy.alarm else "plain"
    low, high = 100 * estimate.low, 100 * estimate.high
    text = f"{100 * estimate.value:.1f} ({low:.1f} to {high:.1f}), test {100 * found.accuracy.reference:.1f}"
    return Strip(text, 100 * estimate.value, low, high, 100 * found.accuracy.reference, tone)  # type: ignore[arg-type]


def _confidence(found: Watched | None) -> str:
    if found is None or found.mean_confidence is None:
        return NONE
    reference = _mean(found.confidence)
    return f"{found.mean_confidence:.3f}, {NONE if reference is None else f'{reference:.2f}'}"


def _mean(histogram: Histogram) -> float | None:
    """The mean of the reference by the middle of each bin; None if nobody measured it."""
    total = sum(histogram.reference)
    if not total:
        return None
    bins = len(histogram.reference)
    return sum(count * (number + 0.5) / bins for number, count in enumerate(histogram.reference)) / total


def detail(number: int, facts: Facts) -> Detail:
    name, found = shown(facts.classifier), facts.watched
    drift = found.drift if found else None
    return Detail(
        number,
        facts,
        name,
        evidence(drift, label=f"Evidence of drift of {name}") if drift and drift.history else None,
        confidences(found.confidence, label=f"Confidence of {name}")
        if found and sum(found.confidence.latest)
        else None,
        _classes(found) if found else None,
        _inputs(facts),
    )


def _classes(found: Watched) -> Table:
    recalls = {one.label: one for one in found.recalls}
    live, test = (sum(getattr(one, name) for one in found.predicted) for name in ("rows", "reference_rows"))
    scale = Scale.over([100.0])
    columns = ("Class", "Answers", "Share", Column("Share, test split", wide=True), Column("Recall, %", axis=scale))
    rows: list[tuple[Cell, ...]] = []
    for one in found.predicted[:MOST_CLASSES]:
        recall = recalls.pop(one.label, None)
        shares = (percent(one.rows / live if live else None), percent(one.reference_rows / test if test else None))
        cell = _recall_cell(recall.estimate, recall.reference, alarm=recall.alarm) if recall else ""
        rows.append((shown(one.label), thousands(one.rows), *shares, cell))
    for recall in [one for one in recalls.values() if one.class_id is None or one.alarm][:MOST_CLASSES]:
        cell = _recall_cell(recall.estimate, recall.reference, alarm=recall.alarm)
        rows.append((shown(recall.label), NONE, NONE, NONE, cell))
    more = len(found.predicted) - MOST_CLASSES
    note = "answers since the watch of this bundle began; recall from labels, with its 95 % interval."
    return table("Classes", f"{note} {more} more classes are not shown." if more > 0 else note, columns, rows)


def _recall_cell(estimate: Interval | None, reference: float | None, *, alarm: bool) -> Cell:
    if estimate is None:
        return ""
    value, low, high = 100 * estimate.value, 100 * estimate.low, 100 * estimate.high
    limit = None if reference is None else 100 * reference
    return Strip(
        f"{value:.0f} ({low:.0f} to {high:.0f}), {estimate.labels} labels",
        value,
        low,
        high,
        limit,
        "bad" if alarm else "plain",
    )


def _inputs(facts: Facts) -> Table | None:
    if not facts.statuses:
        return None
    total = sum(one.rows for one in facts.statuses)
    rows: list[tuple[Cell, ...]] = [
        (f"STATUS {shown(one.name)}", thousands(one.rows), percent(one.rows / total), NONE) for one in facts.statuses
    ]
    if facts.watched is not None:
        inputs = facts.watched.inputs
        for what, live, test in (
            ("format", inputs.formats, inputs.reference_formats),
            ("size", inputs.sizes, inputs.reference_sizes),
        ):
            expected = {one.name: one.rows for one in test}
            of_test, of_live = sum(expected.values()), inputs.rows
            for one in live:
                share = percent(expected.get(one.name, 0) / of_test if of_test else None)
                rows.append(
                    (
                        f"{what} {shown(one.name)}",
                        thousands(one.rows),
                        percent(one.rows / of_live if of_live else None),
                        share,
                    )
                )
    note = "STATUS of all rows; formats and the most frequent sizes of the latest rows."
    return table("Images", note, ("", "Rows", "Share", "Share, test split"), rows)
