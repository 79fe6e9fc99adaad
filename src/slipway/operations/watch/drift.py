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
from typing import Self, cast

import numpy as np
from pydantic import Field

from slipway.contract.base import Evidence
from slipway.errors import DataError
from slipway.operations.watch.reference import Detector, Event, Reference
from slipway.operations.watch.rows import Floats, Ints, Rows

LIFTS = (1.8, 3.0, 7.0, 25.0)
"""Odds of t over those of the bound: what is bet on."""
WEIGHTS: dict[Detector, float] = {
    "confidence": 0.25,
    "distance": 0.25,
    "norm": 0.2,
    "brightness": 0.15,
    "class": 0.1,
    "unusable": 0.05,
}
"""Weight of each detector, which all of its bets share equally."""
_HIGHEST = 0.995
_BATCH = 1_000
"""Rows whose events are held in memory at once."""
_CHUNK = 100
"""Rows that are worked on at once. A factor is over exp(-5.3) and under exp(5.3), so no product overflows."""


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
    log_detectors: tuple[float | None, ...]
    """Logarithm of each bet's detector; None is minus infinity, as before the first row."""
    sums: tuple[float, ...]
    """Logarithm of each bet's product since it was least."""
    since: tuple[int, ...]
    """Row at which each bet's product was last least."""
    log10_evidence: float | None = None
    alarm: Alarm | None = None


class DriftWatch:
    """The detectors of a reference."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._bets = _Bets(reference.events)
        self._digest = hashlib.sha256(reference.to_json().encode()).hexdigest()[:16]

    def start(self, *, rows_between_false_alarms: float) -> DriftState:
        """Return the state before the first row, and after an alarm that was dealt with."""
        bets = self._bets.event.size
        return DriftState(
            reference=self._digest,
            rows_between_false_alarms=rows_between_false_alarms,
            log_detectors=(None,) * bets,
            sums=(0.0,) * bets,
            since=(0,) * bets,
        )

    def feed(self, state: DriftState, rows: Rows) -> DriftState:
        """Return the state after a batch; the result is the same however rows are cut into batches.

        The first alarm stays until `start`.

        Raises:
            DataError: the state belongs to another reference.
        """
        if state.reference != self._digest or len(state.since) != self._bets.event.size:
            raise DataError(
                f"a state of the reference {state.reference}, and this one is {self._digest}; start the watch again"
            )
        run = _Run.of(state)
        for first in range(0, len(rows), _BATCH):
            happened = self.reference.happened(rows.take(slice(first, first + _BATCH)))
            for row in range(0, len(happened), _CHUNK):
                self._bets.advance(run, happened[row : row + _CHUNK])
        return run.state(state)


class _Run:
    """A state as arrays."""

    def __init__(self, log_detectors: Floats, sums: Floats, since: Ints, rows: int, limit: float) -> None:
        self.log_detectors, self.sums, self.since, self.rows, self.limit = log_detectors, sums, since, rows, limit
        self.log_evidence: float | None = None
        self.alarm: Alarm | None = None

    @classmethod
    def of(cls, state: DriftState) -> Self:
        log_detectors = np.array([-np.inf if value is None else value for value in state.log_detectors])
        limit = float(np.log(state.rows_between_false_alarms))
        run = cls(log_detectors, np.array(state.sums), np.array(state.since, dtype=np.int64), state.rows, limit)
        run.alarm = state.alarm
        return run

    def state(self, before: DriftState) -> DriftState:
        if self.rows == before.rows:
            return before
        return DriftState(
            reference=before.reference,
            rows_between_false_alarms=before.rows_between_false_alarms,
            rows=self.rows,
            log_detectors=tuple(self.log_detectors.tolist()),
            sums=tuple(self.sums.tolist()),
            since=tuple(self.since.tolist()),
            log10_evidence=None if self.log_evidence is None else self.log_evidence / float(np.log(10)),
            alarm=self.alarm,
        )


class _Bets:
    """Every bet on every event: factors and weights."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self.events = events
        bounds = np.array([event.bound for event in events])
        odds = bounds / (1 - bounds) * np.array(LIFTS)[:, None]
        chances = np.minimum(odds / (1 + odds), np.maximum(_HIGHEST, (1 + bounds) / 2))
        self.hit = (np.log(chances) - np.log(bounds)).T.ravel()
        self.miss = (np.log1p(-chances) - np.log1p(-bounds)).T.ravel()
        self.gain = self.hit - self.miss
        self.event = np.repeat(np.arange(len(events)), len(LIFTS))
        detectors = np.array([events[index].detector for index in self.event])
        counts = {name: int((detectors == name).sum()) for name in WEIGHTS}
        total = sum(weight for name, weight in WEIGHTS.items() if counts[name])
        self.log_weight = np.log([WEIGHTS[name] / total / counts[name] for name in detectors.tolist()])
        self.detector = detectors

    def advance(self, run: _Run, happened: Floats) -> None:
        """Take rows `[n, events]` into the run; n is at most `_CHUNK`.

        The recursion unrolled is M_n = exp(S_n) (M_0 + the sum over j of exp(-S_(j-1))), with S the sums of the
        factors' logarithms. M_0 may be any size, so it is divided out; exp(S) of a chunk cannot overflow.
        """
        steps = happened[:, self.event] * self.gain + self.miss
        sums = np.cumsum(steps, axis=0)
        started = np.vstack([np.ones(sums.shape[1]), np.exp(-sums[:-1])]).cumsum(axis=0)
        large = np.maximum(run.log_detectors, 0.0)
        scaled = np.exp(sums) * (np.exp(run.log_detectors - large) + np.exp(-large) * started)
        mixture = _log(scaled @ np.exp(self.log_weight + large - large.max())) + large.max()
        over = np.flatnonzero(mixture >= run.limit)
        if run.alarm is None and over.size:
            first = int(over[0])
            _, since = _page(run, sums[: first + 1])
            run.alarm = self._alarm(run, first, _log(scaled[first]) + large, since)
        run.log_detectors = _log(scaled[-1]) + large
        run.sums, run.since = _page(run, sums)
        run.log_evidence = float(mixture[-1])
        run.rows += len(happened)

    def _alarm(self, run: _Run, index: int, logs: Floats, since: Ints) -> Alarm:
        parts = logs + self.log_weight
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
