"""Positions on an axis. The template draws them as SVG strips inside tables, so that every number is text as well."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from slipway.report.wording import MINUS

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
        """The shortest axis of at most five ticks, at 1, 2 or 5 times a power of ten, that holds 0 and the values.

        `most` cuts the axis to about that far from 0, so that one outlier does not press all others together.
        """
        given = [0.0, *(min(max(value, -most), most) for value in values)]
        least, greatest = min(given), max(given)
        span = greatest - least or 1.0
        for step in _steps(span):
            low, high = math.floor(least / step + 1e-9) * step, math.ceil(greatest / step - 1e-9) * step
            if (high - low) / step <= MAX_TICKS - 1 + 1e-9:
                return cls(low, high if high > low else low + step, step)
        raise AssertionError("a step as long as the span always fits")

    def at(self, value: float) -> float:
        """Percent of the axis from its left end, 0 to 100."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high * (1 + 1e-9)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position in percent, and text."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + index * self.step for index in range(count + 1)]
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [(self.at(value), f"{value + 0.0:,.{decimals}f}".replace("-", MINUS)) for value in values]


def _steps(span: float) -> Iterable[float]:
    start = math.floor(math.log10(span / MAX_TICKS))
    return (factor * 10.0**power for power in range(start, start + 4) for factor in (1, 2, 5))
