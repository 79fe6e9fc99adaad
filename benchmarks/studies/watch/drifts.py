"""Simulates streams of rows of real networks, unchanged and shifted, and finds the alarms of the drift watch."""

from collections.abc import Iterator

import numpy as np

from benchmarks.studies.watch.networks import BRIGHTNESS, FOREIGN_NAME, FOREIGN_SHARE, SHIFTS, Population
from benchmarks.studies.watch.oracle import mixed
from benchmarks.studies.watch.together import Drawn, alarms_of, first_rows
from slipway.contract.evidence.studies import Part
from slipway.operations.watch.drift import Alarm, DriftWatch
from slipway.operations.watch.reference import WatchReference
from slipway.operations.watch.rows import Floats, Ints, Rows

ROWS_BETWEEN_FALSE_ALARMS = 432_000
"""Rows of 30 days with a row every six seconds."""
UNCHANGED_ROWS, SHIFTED_ROWS, MILD_ROWS = 20_000, 3_000, 20_000
REFERENCE_ROWS, LONG_REFERENCE_ROWS = 1_000, 4_000
TOGETHER = 50
"""Streams that are simulated together; their tables of factors take 1.5 MB each."""
FALSE_ALARMS = 0.05
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
    long_median_rows: float | None = None
    """`median_rows` with a reference of 4,000 rows; None where it was not simulated."""
    oracle_rows: float | None = None
    """Median of an oracle that has seen images after the change, and knows the answers before it exactly; None where it
    was not simulated."""
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
    """Watch streams: each run draws a new reference from the unchanged rows, and a stream, both with replacement."""
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
        yield _drifted(population, shift, runs=runs, rows=rows, seed=seed)
    yield _drifted(population, FOREIGN_NAME, runs=runs, rows=SHIFTED_ROWS, seed=seed)


def _drifted(population: Population, kind: str, *, runs: int, rows: int, seed: int) -> Drifted:
    found = _alarms(population, kind, runs=runs, rows=rows, seed=seed, reference_rows=REFERENCE_ROWS)
    alarms = [alarm for alarm in found if alarm is not None]
    until, long, oracle = _until(found), None, None
    if kind in WITHIN:
        some = {"runs": max(runs // 5, 1), "rows": rows, "seed": seed}
        longer = _alarms(population, kind, **some, reference_rows=LONG_REFERENCE_ROWS)
        long, oracle = _quantile(_until(longer), 0.5), _oracle(population, kind, **some)
    lost = None
    if kind != FOREIGN_NAME:
        lost = 100 * (population.accuracy("unchanged") - population.accuracy(kind))
    share, median = len(alarms) / runs, _quantile(until, 0.5)
    bar, met = _bar(kind, lost, share, median)
    return Drifted(
        stream=kind,
        rows=rows,
        lost_points=lost,
        alarms=share,
        median_rows=median,
        p95_rows=_quantile(until, 0.95),
        since_error_rows=float(np.median([alarm.since_row for alarm in alarms])) if alarms else None,
        detectors={
            name: sum(alarm.detector == name for alarm in alarms) / len(alarms)
            for name in sorted({alarm.detector for alarm in alarms})
        },
        long_median_rows=long,
        oracle_rows=oracle,
        bar=bar,
        met=met,
    )


def _alarms(
    population: Population, kind: str, *, runs: int, rows: int, seed: int, reference_rows: int
) -> list[Alarm | None]:
    """Find the alarms of all runs. Each draws its reference first, and then its stream."""
    rng = np.random.default_rng([seed, *f"{population.name} {kind}".encode()])
    unchanged, every = population.rows["unchanged"], _every(population, kind)
    found: list[Alarm | None] = []
    for first in range(0, runs, TOGETHER):
        drawn = []
        for _ in range(min(TOGETHER, runs - first)):
            reference = WatchReference.of(unchanged.take(rng.integers(0, len(unchanged), reference_rows)))
            drawn.append(Drawn(DriftWatch(reference), _places(population, kind, rows, rng)))
        found += alarms_of(drawn, every, rows_between_false_alarms=ROWS_BETWEEN_FALSE_ALARMS)
    return found


def _oracle(population: Population, kind: str, *, runs: int, rows: int, seed: int) -> float | None:
    """Watch the same streams with the single bet of the oracle."""
    rng = np.random.default_rng([seed, *f"{population.name} {kind} oracle".encode()])
    before, after = population.ratios[kind]
    share, own = (FOREIGN_SHARE, 0) if kind == FOREIGN_NAME else (1.0, before.size)
    table = mixed(before, after, share=share)[own:]  # a stream of changed rows alone draws from these alone
    found: list[Ints] = []
    for first in range(0, runs, TOGETHER):
        places = np.stack([_places(population, kind, rows, rng) for _ in range(min(TOGETHER, runs - first))])
        tables = np.broadcast_to(table[None, :, None], (len(places), table.size, 1))
        found.append(first_rows(tables, np.ones((len(places), 1)), places, ROWS_BETWEEN_FALSE_ALARMS))
    ends = np.concatenate(found)
    return _quantile(np.where(ends < 0, np.inf, ends + 1.0), 0.5)


def _bar(kind: str, lost_points: float | None, alarms: float, median_rows: float | None) -> tuple[str, bool]:
    if kind == "unchanged":
        return f"at most {FALSE_ALARMS:.0%} alarm", alarms <= FALSE_ALARMS
    if kind in WITHIN:
        return f"median at most {WITHIN[kind]} rows", median_rows is not None and median_rows <= WITHIN[kind]
    if lost_points is not None and lost_points <= HARMLESS_POINTS:
        return f"costs no accuracy: at most {FALSE_ALARMS:.0%} alarm", alarms <= FALSE_ALARMS
    return "none: it costs accuracy", True


def _every(population: Population, kind: str) -> Rows:
    """Return the rows that a stream draws from: the foreign ones after the known ones."""
    if kind != FOREIGN_NAME:
        return population.rows[kind]
    return Rows.joined([population.rows["unchanged"], population.foreign])


def _places(population: Population, kind: str, rows: int, rng: np.random.Generator) -> Ints:
    """Draw the places of a stream's rows in `_every`, with replacement."""
    if kind != FOREIGN_NAME:
        return rng.integers(0, len(population.rows[kind]), rows)
    known = len(population.rows["unchanged"])
    of_known, of_foreign = rng.integers(0, known, rows), rng.integers(0, len(population.foreign), rows)
    return np.where(rng.random(rows) < FOREIGN_SHARE, known + of_foreign, of_known)


def _until(alarms: list[Alarm | None]) -> Floats:
    return np.array([np.inf if alarm is None else alarm.row + 1.0 for alarm in alarms])


def _quantile(until: Floats, share: float) -> float | None:
    value = float(np.quantile(until, share, method="inverted_cdf"))
    return value if np.isfinite(value) else None
