"""The live page of the watch: every classifier in one table, and the busiest and those with an alarm in detail."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from slipway.operations.journal.status import time_text
from slipway.operations.watch.facts import Facts
from slipway.operations.watch.page_charts import Charts, Drawn
from slipway.operations.watch.page_tables import classes, gap, inputs, overview, sizes
from slipway.pages import environment
from slipway.pages.tables import Table
from slipway.pages.wording import NONE, figures
from slipway.system.text import shown

if TYPE_CHECKING:
    from jinja2 import Template

REFRESH_S = 5
STALE_S = 60.0
"""Age of the last look at which the page says that nobody watches."""
MOST_DETAILS = 12
"""Classifiers with charts: those with an alarm first, then by rows."""
MOST_ROWS = 200
"""Classifiers in the table, in the same order."""
TITLE = "Watch"


@dataclass(frozen=True)
class MachinePrice:
    """Price of the machine."""

    per_hour: float
    currency: str
    about: str
    """The machine, the date and the source of the price, in words."""


@dataclass(frozen=True)
class Todo:
    """A task for a person."""

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
    drawn: Drawn
    classes: Table | None
    gap: Table | None
    inputs: tuple[Table, ...]


class LivePage:
    """`page` for a server, which makes each page once, whoever asks."""

    def __init__(self, facts: Callable[[], Sequence[Facts]], *, price: MachinePrice | None = None) -> None:
        self._facts, self._price = facts, price
        self._made: tuple[Sequence[Facts], bool, str] | None = None
        self._charts = Charts()
        self._lock = threading.Lock()  # matplotlib's settings are those of the process

    def __call__(self) -> str:
        """The HTML of the present facts; any thread may ask."""
        with self._lock:
            facts = self._facts()
            stale = bool(facts) and time.time() - max(one.looked_s for one in facts) > STALE_S
            if self._made is None or self._made[0] is not facts or self._made[1] != stale:
                html = page(facts, price=self._price, charts=self._charts, stale=stale)
                self._made = facts, stale, html
            return self._made[2]


def page(
    facts: Sequence[Facts],
    *,
    price: MachinePrice | None = None,
    charts: Charts | None = None,
    stale: bool = False,
) -> str:
    """The page of these facts, self-contained, which reloads itself every five seconds.

    Args:
        price: of the machine; without it no cost is shown.
        charts: what was drawn for the page before.
        stale: whether the facts are too old to rely on.

    Names, labels and sentences are untrusted: Jinja escapes all of them.
    """
    charts = charts or Charts()
    rates = [one.latency.per_second for one in facts if one.latency is not None]
    known = [rate for rate in rates if rate is not None]
    per_second = sum(known) if known else None
    ordered = sorted(facts, key=lambda one: (not one.alarms, -one.rows, one.classifier))
    details = [detail(number, one, charts) for number, one in enumerate(ordered[:MOST_DETAILS])]
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
        "stale": stale,
        "alarms": sum(one.alarms for one in facts),
        "rows": sum(one.rows for one in facts),
        "asked": sum(one.labels_asked for one in facts),
        "given": sum(one.labels_given for one in facts),
        "per_second": per_second,
        "cost": cost_sentence(price, per_second),
        "price": price,
        "todos": [todo for one in ordered for todo in todos(one)],
        "overview": overview(ordered[:MOST_ROWS]) if facts else None,
        "details": details,
        "left_out": max(0, len(facts) - MOST_DETAILS),
        "rows_left_out": max(0, len(facts) - MOST_ROWS),
    }
    return _template().render(context)


@cache
def _template() -> "Template":
    return environment("slipway.operations.watch").get_template("watch.html")


def cost_sentence(price: MachinePrice | None, per_second: float | None) -> str | None:
    """The cost of a million requests at the present rate: the price of an hour ÷ the requests of an hour.

    None without a price, and without requests.
    """
    if price is None or not per_second:
        return None
    return f"{figures(price.per_hour / (per_second * 3600) * 1e6, 2)} {price.currency}"


def todos(facts: Facts) -> list[Todo]:
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
        is_alarm, is_fault = sentence.startswith("alarm: "), sentence.startswith("alert: ")
        section = on.pop(0) if is_alarm and on else ""
        what = sentence.removeprefix("alarm: ").removeprefix("alert: ")
        said.append(Todo(name, what, "bad" if is_alarm or is_fault else "plain", section))
    if not facts.drift_is_watched:
        what = "drift is not watched, so that no alarm can tell a change"
        said.append(Todo(name, what, "plain", "slipwaynotwatched"))
    if facts.latency is not None and facts.latency.is_over:
        what = f"P99 is over the latency budget {facts.latency.when}; find the slow step, lower the rate, or add CPUs"
        said.append(Todo(name, what, "bad", "slipwayoverbudget"))
    return said


def detail(number: int, facts: Facts, charts: Charts) -> Detail:
    name, found = shown(facts.classifier), facts.watched
    images = (inputs(facts), sizes(found) if found else None)
    return Detail(
        number,
        facts,
        name,
        drawn=charts.of(facts, name=name),
        classes=classes(found) if found else None,
        gap=gap(found) if found else None,
        inputs=tuple(one for one in images if one is not None),
    )
