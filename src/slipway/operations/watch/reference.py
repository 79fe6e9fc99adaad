"""Describes unchanged rows: events with a known bound on their frequency, from a finite reference.

A reference of n rows knows each probability only so well. Each bound here holds with a stated probability, over the
draw of the reference, so that a detector need not mistake the reference's own chance for a change.
"""

from collections.abc import Collection, Iterable
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from slipway.contract.typed_file import Evidence
from slipway.errors import DataError, requiring
from slipway.operations.watch.rows import Floats, Rows

with requiring("scipy", extra="operate"):
    from scipy.special import betaincinv

Detector = Literal["confidence", "distance", "norm", "brightness", "class", "unusable"]
Side = Literal["over", "under"]
Kind = Literal["over", "under", "is", "is_not", "other", "not_finite"]

MEASURES: tuple[Detector, ...] = ("confidence", "distance", "norm", "brightness")
LEVELS = (0.005, 0.02, 0.1, 0.3)
"""Shares of the reference rows that lie beyond a threshold."""
WEIGHTS: dict[tuple[Detector, Kind], float] = {
    ("confidence", "under"): 0.2,
    ("confidence", "over"): 0.03,
    ("distance", "over"): 0.4,
    ("distance", "under"): 0.03,
    ("norm", "over"): 0.07,
    ("norm", "under"): 0.07,
    ("brightness", "over"): 0.07,
    ("brightness", "under"): 0.07,
    ("class", "is"): 0.04,
    ("class", "is_not"): 0.04,
    ("class", "other"): 0.02,
    ("unusable", "not_finite"): 0.04,
}
"""Weight of the bets on each kind of event. Thresholds share the error of the reference in the same proportion."""
SLACK: dict[Detector, float] = {"brightness": 0.05, "norm": 0.02}
"""Shares by which a value may be beyond a threshold without being an event. Images may become a little darker."""
MIN_ROWS = 100
MOST_MISSING = 0.01
"""Largest share of rows with a value that is not a number that counts as usual; more of them are evidence."""
_ERROR = 0.02
_OF_THRESHOLDS = 0.75
"""Share of the error that the thresholds have; the classes have the rest."""
_TOLERANCE = 0.0


class Event(Evidence):
    """Something that a row can be, and the bound on its probability while nothing changes."""

    detector: Detector
    kind: Kind
    value: float
    """Threshold of `over` and `under`; class id of `is` and `is_not`."""
    bound: float = Field(gt=0, lt=1)
    """Upper bound on the probability of the event."""

    @property
    def words(self) -> str:
        if self.kind in ("over", "under"):
            return f"{self.detector} {self.kind} {self.value:.4g}"
        if self.kind in ("is", "is_not"):
            return f"class {int(self.value)} is {'more' if self.kind == 'is' else 'less'} frequent"
        return "a class that the reference does not have" if self.kind == "other" else "a value that is not a number"


class WatchReference(Evidence):
    """The events of a reference. All bounds hold together with probability 1 - `error`."""

    rows: int
    error: float
    tolerance: float
    classes: tuple[int, ...]
    events: tuple[Event, ...] = Field(min_length=1)

    @classmethod
    def of(
        cls,
        rows: Rows,
        *,
        error: float = _ERROR,
        tolerance: float = _TOLERANCE,
        measures: Collection[Detector] = MEASURES,
    ) -> Self:
        """Make a reference of unchanged rows.

        A threshold is an order statistic: j of n rows lie over it, so the probability of a new row over it is
        Beta(j + 1, n - j) (Wilks, Annals of Mathematical Statistics 12, 1941), or smaller where values are equal. The
        probability of a class is bounded by Clopper and Pearson (Biometrika 26, 1934), which is the same formula. Three
        quarters of `error` are shared by the thresholds, by weight, and the rest by the classes, evenly (Bonferroni).
        An event that every row of the reference was has no bound under 1, and is left out.

        A value that is not a number lies beyond no threshold, in the reference as in the rows that are compared with
        it, so that every bound counts all n rows. `not_finite` has the bound of the rows with such a value.

        Args:
            error: probability, over the draw of the reference, that any bound is too small.
            tolerance: added to each bound: a share of rows that may change without anybody being told.
            measures: columns to take thresholds from, where the rows have them; the classes are always taken.

        Raises:
            DataError: fewer than 100 rows, or a measure with fewer than 100 values that are numbers.
        """
        if len(rows) < MIN_ROWS:
            raise DataError(f"a reference of {len(rows)} rows; give at least {MIN_ROWS}")
        columns: dict[Detector, Floats] = {
            name: np.sort(column[np.isfinite(column)]).astype(np.float64)
            for name in MEASURES
            if name in measures and (column := rows.columns().get(name)) is not None
        }
        broken = [name for name, column in columns.items() if column.size < MIN_ROWS]
        if broken:
            raise DataError(
                f"a reference with under {MIN_ROWS} values that are numbers in {', '.join(broken)}; give more"
            )
        ids, counts = np.unique(rows.class_id, return_counts=True)

        def bound(beyond: int, *, share: float) -> float:
            return _upper(beyond, len(rows), error=error * share) + tolerance

        tails = [
            (name, kind, value * (1 + (slack if kind == "over" else -slack)), beyond)
            for name, column in columns.items()
            for slack in [SLACK.get(name, 0.0)]
            for kind, value, beyond in _thresholds(column, rows=len(rows))
        ]
        shares = np.array([WEIGHTS[name, kind] for name, kind, _, _ in tails])
        shares *= _OF_THRESHOLDS / shares.sum()
        found: list[tuple[Detector, Kind, float, float]] = [
            (name, kind, value, bound(beyond, share=share))
            for (name, kind, value, beyond), share in zip(tails, shares.tolist(), strict=True)
        ]
        even = (1 - _OF_THRESHOLDS) / (2 * ids.size + 2)
        for id_, count in zip(ids.tolist(), counts.tolist(), strict=True):
            found.append(("class", "is", id_, bound(count, share=even)))
            found.append(("class", "is_not", id_, bound(len(rows) - count, share=even)))
        found.append(("class", "other", 0, bound(0, share=even)))
        unusable = min(int((~_finite(rows, columns)).sum()), int(MOST_MISSING * len(rows)))
        found.append(("unusable", "not_finite", 0, bound(unusable, share=even)))
        events = tuple(
            Event(detector=name, kind=kind, value=value, bound=most) for name, kind, value, most in found if most < 1
        )
        return cls(rows=len(rows), error=error, tolerance=tolerance, classes=tuple(ids.tolist()), events=events)

    def happened(self, rows: Rows) -> Floats:
        """Return 1 where an event happened and 0 elsewhere, `[rows, events]`.

        Raises:
            DataError: the rows lack a column that the reference has.
        """
        columns = rows.columns()
        missing = {event.detector for event in self.events if event.kind in ("over", "under")} - columns.keys()
        if missing:
            raise DataError(f"rows without {', '.join(sorted(missing))}, which the reference has; give these columns")
        finite = _finite(rows, columns)
        found = np.empty((len(rows), len(self.events)))
        for index, event in enumerate(self.events):
            match event.kind:
                case "over":
                    found[:, index] = columns[event.detector] > event.value
                case "under":
                    found[:, index] = columns[event.detector] < event.value
                case "is":
                    found[:, index] = rows.class_id == int(event.value)
                case "is_not":
                    found[:, index] = rows.class_id != int(event.value)
                case "other":
                    found[:, index] = ~np.isin(rows.class_id, self.classes)
                case "not_finite":
                    found[:, index] = ~finite
        return found


def _finite(rows: Rows, columns: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Whether every one of these columns of a row is a number, `[n]`."""
    found = np.ones(len(rows), dtype=bool)
    for name in columns:
        found &= np.isfinite(rows.columns()[name])
    return found


def _thresholds(ordered: Floats, *, rows: int) -> list[tuple[Side, float, int]]:
    """Threshold of each level and side, and how many of all rows lie beyond it where no values are equal."""
    thresholds: list[tuple[Side, float, int]] = []
    for beyond in (min(round(level * rows), ordered.size - 1) for level in LEVELS):
        thresholds.append(("over", float(ordered[ordered.size - 1 - beyond]), beyond))
        thresholds.append(("under", float(ordered[beyond]), beyond))
    return thresholds


def _upper(count: int, rows: int, *, error: float) -> float:
    return 1.0 if count >= rows else float(betaincinv(count + 1, rows - count, 1 - error))
