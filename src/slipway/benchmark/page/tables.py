"""Tables of the page: cells of text, of a verdict, or of a value with its interval on the column's axis."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from slipway.benchmark.page.axes import Linear
from slipway.benchmark.page.tones import Tone

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Badge:
    text: str
    tone: Tone


@dataclass(frozen=True)
class Strip:
    """A value on the axis of its column; the text stands below it."""

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
    axis: Linear | None = None
    """Of a column of strips."""
    origin: float | None = None
    """Where the axis has a line of reference."""
    wide: bool = False
    """Left out on a narrow screen."""
    words: bool = False
    """To the left, and may wrap."""


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading."""

    title: str
    note: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def share_interval(share: float, *, of: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted in `of` independent trials.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)
