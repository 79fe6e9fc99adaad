"""Axes: where a value lies, in percent of the axis, and the ticks as text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

MAX_TICKS = 6
NINES = ((0.5, "P50"), (0.9, "P90"), (0.99, "P99"), (0.999, "P99.9"), (0.9999, "P99.99"), (0.99999, "P99.999"))


class Axis(Protocol):
    def at(self, value: float) -> float:
        """0 to 100; what lies beyond an end is put on it."""

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position in percent, and text."""


@dataclass(frozen=True)
class Linear:
    """From 0 to a round number."""

    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Linear":
        """The shortest axis of at most six ticks, at 1, 2 or 5 times a power of ten, that holds 0 and the values."""
        most = max(values, default=0.0) or 1.0
        start = math.floor(math.log10(most / MAX_TICKS))
        steps = (factor * 10.0**power for power in range(start, start + 3) for factor in (1, 2, 5))
        step = next(step for step in steps if math.ceil(most / step - 1e-9) < MAX_TICKS)
        return cls(math.ceil(most / step - 1e-9) * step, step)

    def at(self, value: float) -> float:
        return _percent(value / self.high)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        values = (number * self.step for number in range(round(self.high / self.step) + 1))
        return [(self.at(value), f"{value:,g}") for value in values]


@dataclass(frozen=True)
class Logarithmic:
    """Between two of 1, 2 and 5 times a power of ten."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Logarithmic":
        """The shortest axis that holds the values, which are above 0, and at least a factor of four."""
        positive = [value for value in values if value > 0] or [1.0]
        least, most = min(positive), max(positive)
        low = max(tick for tick in _round_numbers(least / 10, least) if tick <= least * (1 + 1e-9))
        high = min(tick for tick in _round_numbers(most, most * 10) if tick >= max(most, 4 * low) * (1 - 1e-9))
        return cls(low, high)

    def at(self, value: float) -> float:
        return _percent(math.log(max(value, self.low) / self.low) / math.log(self.high / self.low))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """1, 2 and 5 times each power of ten; the powers and the ends alone where those are too many."""
        values = [tick for tick in _round_numbers(self.low, self.high) if self.low <= tick <= self.high * (1 + 1e-9)]
        if len(values) > MAX_TICKS + 2:
            values = [value for value in values if math.log10(value) % 1 < 1e-9 or value in (self.low, self.high)]
        return [(self.at(value), f"{value:,g}") for value in values]


@dataclass(frozen=True)
class Nines:
    """Shares by how little is left above them: P90, P99 and P99.9 are equally far apart."""

    requests: int
    """The most of one line: its maximum is the end of the axis."""

    def at(self, share: float) -> float:
        return _percent(-math.log10(max(1 - share, 1e-12)) / math.log10(self.requests + 1))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        shown = [(share, text) for share, text in NINES if share <= self.requests / (self.requests + 1)]
        return [(self.at(share), text) for share, text in shown]


def _round_numbers(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)
