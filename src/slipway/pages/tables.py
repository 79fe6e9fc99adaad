"""The tables of the pages. A cell holds text, a verdict, or a value with its interval on the column's axis."""

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from slipway.pages.wording import MINUS

Tone = Literal["good", "warn", "bad", "plain"]
MAX_TICKS = 5


@dataclass(frozen=True)
class Scale:
    """A linear axis whose ends are ticks."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float], *, most: float = math.inf) -> "Scale":
        """Return the shortest axis that holds 0 and the values, with at most five ticks at 1, 2 or 5 times 10^n.

        `most` limits the axis to about that distance from 0, so that one outlier does not squeeze all other values.
        """
        given = [0.0, *(min(max(value, -most), most) for value in values)]
        least, greatest = min(given), max(given)
        span = greatest - least or 1.0
        start = math.floor(math.log10(span / MAX_TICKS))
        for step in (factor * 10.0**power for power in range(start, start + 4) for factor in (1, 2, 5)):
            low, high = math.floor(least / step + 1e-9) * step, math.ceil(greatest / step - 1e-9) * step
            if (high - low) / step <= MAX_TICKS - 1 + 1e-9:
                return cls(low, high if high > low else low + step, step)
        raise AssertionError("a step as long as the span always fits")

    def at(self, value: float) -> float:
        """Return the position of `value` in percent from the left end of the axis, 0 to 100."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high * (1 + 1e-9)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return position, in percent, and text of each tick."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + index * self.step for index in range(count + 1)]
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [(self.at(value), f"{value + 0.0:,.{decimals}f}".replace("-", MINUS)) for value in values]


@dataclass(frozen=True)
class Badge:
    text: str
    tone: Tone


@dataclass(frozen=True)
class Strip:
    """A value on the axis of its column, with its text below."""

    text: str
    at: float
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    tone: Tone = "plain"


Cell = str | Badge | Strip


@dataclass(frozen=True)
class Column:
    title: str
    axis: Scale | None = None
    """Axis of a column of strips."""
    origin: float | None = None
    """Value at which the axis has a reference line."""
    wide: bool = False
    """Whether the column is hidden on a narrow screen."""
    words: bool = False
    """Whether the column is left-aligned text that may wrap."""


@dataclass(frozen=True)
class Table:
    """A table with a caption. The first cell of a row is its heading."""

    title: str
    note: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(
    title: str,
    note: str,
    columns: Iterable[str | Column],
    rows: Iterable[tuple[Cell, ...]],
    *,
    source: str = "",
    words: Container[str] = (),
    wide: Container[str] = (),
) -> Table:
    """Make a table. A plain title makes a column of numbers; titles in `words` or `wide` set that column's flags."""
    named = (c if isinstance(c, Column) else Column(c, words=c in words, wide=c in wide) for c in columns)
    return Table(title, note, source, tuple(named), tuple(rows))
