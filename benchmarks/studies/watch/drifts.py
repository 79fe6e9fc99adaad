"""Streams of rows of real networks, unchanged and shifted, and when the drift watch alarms."""

from collections.abc import Iterator

import numpy as np

from benchmarks.studies.watch.networks import SHIFTS, Population
from slipway.contract.evidence.studies import Part
from slipway.operations.watch.drift import DriftWatch
from slipway.operations.watch.reference import Reference
from slipway.operations.watch.rows import Rows

ROWS_BETWEEN_FALSE_ALARMS = 432_000
"""30 days of a row every six seconds."""
UNCHANGED_ROWS, SHIFTED_ROWS, MILD_ROWS = 20_000, 3_000, 20_000
REFERENCE_ROWS = 1_000
FALSE_ALARMS = 0.05
BRIGHTNESS, FOREIGN_NAME, FOREIGN_SHARE = "brightness -25 %", "15 % of a foreign class", 0.15
WITHIN = {BRIGHTNESS: 50, FOREIGN_NAME: 200}
"""Bars: rows until the alarm, of the median run."""
HARMLESS_POINTS = 0.5
"""Loss of accuracy, in points, up to which a shift is to be silent."""


class Drifted(Part):
    """Streams of one kind through one network."""

    stream: str
    rows: int
    lost_points: float | None
    """Accuracy of the unchanged images minus that of the shifted ones, in percentage points; None for new classes."""
    alarms: float
    """Share of the runs that alarm within `rows`."""
    median_rows: float | None
    """Rows until the alarm; None if fewer than half of the runs alarm."""
    p95_rows: float | None
    since_error_rows: float | None
    """Median of the estimated first row of the change, which is 0."""
    detectors: dict[str, float]
    """Share of the alarms by detector."""
    bar: str
    met: bool


class WatchedNetwork(Part):
    name: str
    described: str
    accuracy: float
    false_alarms_per_30_days: float
    """Alarms in the unchanged streams, over their rows, times 432,000."""
    streams: tuple[Drifted, ...]


def watched(population: Population, *, runs: int, seed: int) -> WatchedNetwork:
    """Each run draws a new reference from the unchanged rows, and a stream; both with replacement."""
    streams = tuple(_streams(population, runs=runs, seed=seed))
    false = streams[0].alarms * ROWS_BETWEEN_FALSE_ALARMS / UNCHANGED_ROWS
    return WatchedNetwork(
        name=population.name,
        described=population.described,
        accuracy=population.accuracy("unchanged"),
        false_alarms_per_30_days=false,
        streams=streams,
    )


def _streams(population: Population, *, runs: int, seed: int) -> Iterator[Drifted]:
    yield _drifted(population, "unchanged", runs=runs, rows=UNCHANGED_ROWS, seed=seed)
    for shift in SHIFTS:
        rows = SHIFTED_ROWS if shift == BRIGHTNESS else MILD_ROWS
        yield _drifted(
            population, shift, runs=runs if shift == BRIGHTNESS else max(runs // 10, 1), rows=rows, seed=seed
        )
    yield _drifted(population, FOREIGN_NAME, runs=runs, rows=SHIFTED_ROWS, seed=seed)


def _drifted(population: Population, kind: str, *, runs: int, rows: int, seed: int) -> Drifted:
    rng = np.random.default_rng([seed, *f"{population.name} {kind}".encode()])
    found = []
    for _ in range(runs):
        watch = DriftWatch(Reference.of(_drawn(population.rows["unchanged"], REFERENCE_ROWS, rng)))
        state = watch.start(rows_between_false_alarms=ROWS_BETWEEN_FALSE_ALARMS)
        found.append(watch.feed(state, _stream(population, kind, rows, rng)).alarm)
    alarms = [alarm for alarm in found if alarm is not None]
    until = np.array([np.inf if alarm is None else alarm.row + 1.0 for alarm in found])
    lost = None
    if kind != FOREIGN_NAME:
        lost = 100 * (population.accuracy("unchanged") - population.accuracy(kind))
    share, median = len(alarms) / runs, _finite(float(np.quantile(until, 0.5, method="inverted_cdf")))
    bar, met = _bar(kind, lost, share, median)
    return Drifted(
        stream=kind,
        rows=rows,
        lost_points=lost,
        alarms=share,
        median_rows=median,
        p95_rows=_finite(float(np.quantile(until, 0.95, method="inverted_cdf"))),
        since_error_rows=float(np.median([alarm.since_row for alarm in alarms])) if alarms else None,
        detectors={
            name: sum(alarm.detector == name for alarm in alarms) / len(alarms)
            for name in sorted({alarm.detector for alarm in alarms})
        },
        bar=bar,
        met=met,
    )


def _bar(kind: str, lost_points: float | None, alarms: float, median_rows: float | None) -> tuple[str, bool]:
    if kind == "unchanged":
        return f"at most {FALSE_ALARMS:.0%} alarm", alarms <= FALSE_ALARMS
    if kind in WITHIN:
        return f"median at most {WITHIN[kind]} rows", median_rows is not None and median_rows <= WITHIN[kind]
    if lost_points is not None and lost_points <= HARMLESS_POINTS:
        return f"costs no accuracy: at most {FALSE_ALARMS:.0%} alarm", alarms <= FALSE_ALARMS
    return "none: it costs accuracy", True


def _stream(population: Population, kind: str, rows: int, rng: np.random.Generator) -> Rows:
    if kind != FOREIGN_NAME:
        return _drawn(population.rows[kind], rows, rng)
    known, foreign = _drawn(population.rows["unchanged"], rows, rng), _drawn(population.foreign, rows, rng)
    which = rng.random(rows) < FOREIGN_SHARE
    return Rows(**{name: np.where(which, foreign.columns()[name], column) for name, column in known.columns().items()})


def _drawn(rows: Rows, number: int, rng: np.random.Generator) -> Rows:
    return rows.take(rng.integers(0, len(rows), number))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
