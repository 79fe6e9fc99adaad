"""Tells a change of the rows from chance, with a stated mean number of rows between false alarms.

Each event of the reference is bet on: a bet multiplies by t/p where the event happens and by (1 - t)/(1 - p) where it
does not, with p the upper bound on its probability and t > p. While nothing changes, the expected factor is at most 1,
whatever the true probability below p. A Shiryaev-Roberts e-detector is the sum, over all possible starts, of the
products of these factors since then; it follows M <- (M + 1) factor. The weighted mean of the detectors of all bets is
an e-detector too: its expectation after n rows is at most n. So an alarm at a mean of A or more has a mean time to a
false alarm of at least A rows, and a stream of n unchanged rows alarms with a probability of at most n / A.

Source: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change detection (New England
Journal of Statistics in Data Science 2, 2024).
"""

import hashlib
from collections import Counter
from typing import Self, cast

import numpy as np
from pydantic import Field

from slipway.contract.typed_file import Evidence
from slipway.errors import DataError
from slipway.operations.watch.reference import WEIGHTS, Detector, Event, WatchReference
from slipway.operations.watch.rows import Floats, Ints, Rows

LIFTS = (2.5, 5.0, 12.0)
"""Odds of t over those of the bound: what is bet on. Smaller ones would find changes that cost no accuracy."""
_HIGHEST = 0.995
_BATCH = 1_000
"""Rows whose events are held in memory at once."""
_CHUNK = 64
"""Rows that are worked on at once. A factor is over 2^-7.7 and at most 25, so no value overflows within them."""
_DOUBLINGS = 500
"""Powers of two that are taken out of a value at once."""


class Alarm(Evidence):
    """The first row at which the evidence sufficed."""

    row: int
    """Number of the row since the watch began, from 0."""
    since_row: int
    """Most likely first row of the change: where the bet that grew most began to grow."""
    detector: Detector
    """Detector with the largest part of the evidence."""
    event: str
    """Event of the bet with the largest part of it."""
    log10_evidence: float


class DriftState(Evidence):
    """All that a watch must keep between two batches; `to_json` and `parse` store it."""

    reference: str
    """Digest of the reference whose bets these are."""
    rows_between_false_alarms: float = Field(gt=1)
    rows: int = 0
    detectors: tuple[float, ...]
    """Each bet's detector, over 2 to the power of its doublings."""
    doublings: tuple[int, ...]
    sums: tuple[float, ...]
    """Logarithm of each bet's product since it was least."""
    since: tuple[int, ...]
    """Row at which each bet's product was last least."""
    log10_evidence: float | None = None
    alarm: Alarm | None = None


class DriftWatch:
    """The detectors of a reference."""

    def __init__(self, reference: WatchReference) -> None:
        self.reference = reference
        self.bets = Bets(reference.events)
        self._digest = hashlib.sha256(reference.to_json().encode()).hexdigest()[:16]

    def start(self, *, rows_between_false_alarms: float) -> DriftState:
        """Return the state before the first row, and after an alarm that was dealt with."""
        bets = self.bets.event.size
        return DriftState(
            reference=self._digest,
            rows_between_false_alarms=rows_between_false_alarms,
            detectors=(0.0,) * bets,
            doublings=(0,) * bets,
            sums=(0.0,) * bets,
            since=(0,) * bets,
        )

    def feed(self, state: DriftState, rows: Rows) -> DriftState:
        """Return the state after a batch; detectors are the same to the last bit however rows are cut into batches.

        The first alarm stays until `start`.

        Raises:
            DataError: the state belongs to another reference.
        """
        if state.reference != self._digest or len(state.since) != self.bets.event.size:
            raise DataError(
                f"a state of the reference {state.reference}, and this one is {self._digest}; start the watch again"
            )
        run = _Run.of(state)
        for first in range(0, len(rows), _BATCH):
            happened = self.reference.happened(rows.take(slice(first, first + _BATCH)))
            for row in range(0, len(happened), _CHUNK):
                self.bets.advance(run, happened[row : row + _CHUNK])
        return run.state(state)

    def factors(self, rows: Rows) -> Floats:
        """Return what each row multiplies each bet's stake by, `[rows, bets]`."""
        return self.bets.factors(self.reference.happened(rows))


class Detectors:
    """Shiryaev-Roberts detectors of bets, `[..., bets]`: of one stream, or of many that are simulated together.

    A detector is a value times 2 to the power of its doublings, so that evidence may grow without end. Powers of two
    change no digit: the values are the same to the last bit however many streams there are, and wherever they are cut.
    """

    def __init__(self, values: Floats, doublings: Ints) -> None:
        self.values, self.doublings = values, doublings
        self._one: Floats = np.ldexp(1.0, -doublings)
        self.is_scaled = bool(doublings.any())

    def take(self, factors: Floats) -> None:
        """Take one row of each stream in. `settle` must follow after 64 rows at most."""
        self.values += self._one
        self.values *= factors

    def mixture(self, weights: Floats) -> Floats:
        """The weighted mean of all bets' detectors, `[...]`; infinite where it is over 1.8e308."""
        return self.mixture_of(self.values, weights)

    def mixture_of(self, values: Floats, weights: Floats) -> Floats:
        """Return the weighted mean of `values` `[..., bets]` since the last `settle`."""
        if self.is_scaled:
            with np.errstate(over="ignore", divide="ignore"):
                values = values / self._one
        weighted: Floats = (values * weights).sum(axis=-1)
        return weighted

    def settle(self) -> None:
        """Take powers of two out of large values, and give them back to small ones."""
        large = self.values > 2.0**_DOUBLINGS
        small = (self.values < 2.0**-_DOUBLINGS) & (self.doublings > 0)
        if large.any() or small.any():
            moved = _DOUBLINGS * (large.astype(np.int64) - small)
            self.values, self.doublings = np.ldexp(self.values, -moved), self.doublings + moved
            self._one, self.is_scaled = np.ldexp(1.0, -self.doublings), bool(self.doublings.any())

    def logs(self, values: Floats) -> Floats:
        """Natural logarithms of detectors with these values since the last `settle`."""
        logs: Floats = _log(values) + self.doublings * np.log(2)
        return logs


class _Run:
    """A state as arrays."""

    def __init__(self, detectors: Detectors, sums: Floats, since: Ints, rows: int, limit: float) -> None:
        self.detectors, self.sums, self.since, self.rows, self.limit = detectors, sums, since, rows, limit
        self.log_evidence: float | None = None
        self.alarm: Alarm | None = None

    @classmethod
    def of(cls, state: DriftState) -> Self:
        detectors = Detectors(np.array(state.detectors), np.array(state.doublings, dtype=np.int64))
        since, limit = np.array(state.since, dtype=np.int64), state.rows_between_false_alarms
        run = cls(detectors, np.array(state.sums), since, state.rows, limit)
        run.alarm = state.alarm
        return run

    def state(self, before: DriftState) -> DriftState:
        if self.rows == before.rows:
            return before
        return DriftState(
            reference=before.reference,
            rows_between_false_alarms=before.rows_between_false_alarms,
            rows=self.rows,
            detectors=tuple(self.detectors.values.tolist()),
            doublings=tuple(self.detectors.doublings.tolist()),
            sums=tuple(self.sums.tolist()),
            since=tuple(self.since.tolist()),
            log10_evidence=None if self.log_evidence is None else self.log_evidence / float(np.log(10)),
            alarm=self.alarm,
        )


class Bets:
    """Every bet on every event: factors and weights."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self.events = events
        bounds = np.array([event.bound for event in events])
        odds = bounds / (1 - bounds) * np.array(LIFTS)[:, None]
        chances = np.minimum(odds / (1 + odds), np.maximum(_HIGHEST, (1 + bounds) / 2))
        self.hit = (chances / bounds).T.ravel()
        self.miss = ((1 - chances) / (1 - bounds)).T.ravel()
        self.event = np.repeat(np.arange(len(events)), len(LIFTS))
        kinds = [(event.detector, event.kind) for event in events]
        alike = Counter(kinds)
        weights = np.array([WEIGHTS[kind] / alike[kind] for kind in kinds for _ in LIFTS])
        self.weights: Floats = weights / weights.sum()
        self.detector = np.array([events[index].detector for index in self.event])

    def factors(self, happened: Floats) -> Floats:
        """Factors `[n, bets]` of rows with these events, `[n, events]`."""
        found: Floats = np.where(happened[:, self.event] > 0, self.hit, self.miss)
        return found

    def advance(self, run: _Run, happened: Floats) -> None:
        """Take rows `[n, events]` into the run; n is at most `_CHUNK`."""
        factors = self.factors(happened)
        values = np.empty_like(factors)
        for row in range(len(factors)):
            run.detectors.take(factors[row])
            values[row] = run.detectors.values
        mixture = run.detectors.mixture_of(values, self.weights)
        sums = np.cumsum(np.log(factors), axis=0)
        over = np.flatnonzero(mixture >= run.limit)
        if run.alarm is None and over.size:
            first = int(over[0])
            _, since = _page(run, sums[: first + 1])
            run.alarm = self._alarm(run, first, run.detectors.logs(values[first]), since)
        run.log_evidence = float(np.logaddexp.reduce(run.detectors.logs(values[-1]) + np.log(self.weights)))
        run.detectors.settle()
        run.sums, run.since = _page(run, sums)
        run.rows += len(happened)

    def _alarm(self, run: _Run, index: int, logs: Floats, since: Ints) -> Alarm:
        parts = logs + np.log(self.weights)
        of = {name: float(np.logaddexp.reduce(parts[self.detector == name])) for name in np.unique(self.detector)}
        detector = max(of, key=lambda name: of[name])
        best = int(np.argmax(np.where(self.detector == detector, parts, -np.inf)))
        return Alarm(
            row=run.rows + index,
            since_row=int(since[best]),
            detector=cast(Detector, str(detector)),
            event=self.events[self.event[best]].words,
            log10_evidence=float(np.logaddexp.reduce(parts)) / float(np.log(10)),
        )


def _page(run: _Run, sums: Floats) -> tuple[Floats, Ints]:
    """Each bet's sum over its least so far, and the row after that: the most likely first row of a change.

    Source: Page's cumulative sum (Biometrika 41, 1954), whose last zero estimates the beginning.
    """
    total = run.sums + sums
    last = len(sums) - 1 - total[::-1].argmin(axis=0)
    least = np.take_along_axis(total, last[None], axis=0)[0]
    since = np.where(least <= 0, run.rows + last + 1, run.since)
    return total[-1] - np.minimum(least, 0.0), since


def _log(values: Floats) -> Floats:
    """Logarithm of what may have underflowed to 0."""
    logs: Floats = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return logs
