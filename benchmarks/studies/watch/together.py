"""Runs many streams of rows through their drift watches at once.

The recursion is that of `slipway watch`, `Detectors`, on the bets of many streams together; it gives the same values to
the last bit. The text of an alarm comes from `DriftWatch.feed` itself, which must find the alarm at the same row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slipway.operations.watch.drift import Alarm, Detectors, DriftWatch
from slipway.operations.watch.rows import Floats, Ints, Rows

SETTLE_ROWS = 64


@dataclass(frozen=True)
class Drawn:
    """A watch with its reference, and the places in a population of the rows that it sees."""

    watch: DriftWatch
    places: Ints


def alarms_of(drawn: Sequence[Drawn], population: Rows, *, rows_between_false_alarms: float) -> list[Alarm | None]:
    """Find the first alarm of each stream.

    Raises:
        AssertionError: one stream alone alarms at another row.
    """
    found: list[Alarm | None] = [None] * len(drawn)
    sizes = np.array([one.watch.bets.weights.size for one in drawn])
    for size in np.unique(sizes):  # references with other classes have another number of bets
        alike = np.flatnonzero(sizes == size)
        tables = np.stack([drawn[place].watch.factors(population) for place in alike])
        weights = np.stack([drawn[place].watch.bets.weights for place in alike])
        places = np.stack([drawn[place].places for place in alike])
        for place, row in zip(alike, first_rows(tables, weights, places, rows_between_false_alarms), strict=True):
            if row >= 0:
                found[place] = _alone(drawn[place], population, int(row), rows_between_false_alarms)
    return found


def first_rows(tables: Floats, weights: Floats, places: Ints, limit: float) -> Ints:
    """Find the first row of each stream at which its evidence is at least `limit`, `[streams]`; -1 for none.

    Args:
        tables: `[streams, population, bets]`: factors of each row of the population.
        weights: `[streams, bets]`.
        places: `[streams, rows]`: places in the population.
    """
    streams, population, bets = tables.shape
    flat = tables.reshape(-1, bets)
    rows = np.ascontiguousarray((places + np.arange(streams)[:, None] * population).T)
    detectors = Detectors(np.zeros((streams, bets)), np.zeros((streams, bets), np.int64))
    factors, first = np.empty((streams, bets)), np.full(streams, -1)
    heaviest = weights.max(axis=0)
    for row, of_row in enumerate(rows):
        np.take(flat, of_row, axis=0, out=factors, mode="clip")
        detectors.take(factors)
        # A product of matrices is fast, but rounds differently: it only shows that no stream is near the limit.
        if detectors.is_scaled or (detectors.values @ heaviest).max() >= 0.99 * limit:
            over = (detectors.mixture(weights) >= limit) & (first < 0)
            first[over] = row
            if (first >= 0).all():
                break
        if row % SETTLE_ROWS == SETTLE_ROWS - 1:
            detectors.settle()
    return first


def _alone(one: Drawn, population: Rows, row: int, limit: float) -> Alarm:
    state = one.watch.start(rows_between_false_alarms=limit)
    alarm = one.watch.feed(state, population.take(one.places[: row + 1])).alarm
    assert alarm is not None, "the same recursion"
    assert alarm.row == row, (alarm.row, row)
    return alarm
