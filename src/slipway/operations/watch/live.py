"""The live reference: what unchanged live rows look like, and how they differ from the test split.

Unchanged means one of three things. As a rule: the first rows after the deployment (or a restart), with no alarm of
the test split's detectors, and with evidence of at most 20 times the number of rows. The evidence of n unchanged rows
is n at most on average, so that they fail this in one deployment of 20 at most (Markov); then these rows are left out,
and as many rows after them are tried. Or: a person said so (`slipway watch restart --live`). Or: the test split is too
small for a check.
"""

import time

import numpy as np

from slipway.operations.journal.reading import read_columns
from slipway.operations.journal.store import Store
from slipway.operations.watch.facts import Gap
from slipway.operations.watch.rows import Floats, Rows
from slipway.operations.watch.settings import MOST_TIMES_ROWS, WatchSettings
from slipway.operations.watch.state import Current, LiveReference
from slipway.operations.watch.test_split import (
    TestReference,
    class_counts,
    drift_reference,
    quantiles,
)

BATCH = 2_000
"""Rows whose embeddings are held in memory at once."""


def missing(current: Current, reference: TestReference, *, settings: WatchSettings) -> str:
    """Return the reason why live traffic has given no reference yet; empty if it has, or if it may give one now."""
    if current.live is not None:
        return ""
    if current.bets is not None and current.bets.alarm is not None and not current.trusted:
        return "an alarm is on, so that live rows make no reference until a restart"
    said = _suspected(current, reference)
    if current.live_rows < settings.reference_rows:
        there = f"{current.live_rows:,} of {settings.reference_rows:,} live rows for a reference are there"
        return f"{there}, and {said} by then" if said else there
    return said


def _suspected(current: Current, reference: TestReference) -> str:
    """Return the reason why the rows so far are not known to be unchanged; empty if they are."""
    if current.trusted or reference.drift is None or current.bets is None:
        return ""
    evidence, most = current.bets.state.log10_evidence, np.log10(MOST_TIMES_ROWS * max(current.bets.state.rows, 1))
    if evidence is None or evidence <= most:
        return ""
    return f"the evidence of a change, 10^{evidence:.1f}, must fall to 10^{most:.1f}"


def live_reference(
    current: Current, reference: TestReference, *, store: Store, classifier: str, settings: WatchSettings
) -> Current:
    """Take the live reference if there are enough unchanged rows; the drift detectors then begin anew with it.

    Rows at whose end the evidence is too high are left out for good, and the next ones are counted.
    """
    if current.live is not None or current.live_rows < settings.reference_rows:
        return current
    if missing(current, reference, settings=settings):
        return current.model_copy(update={"live_after": current.last_row, "live_rows": 0})
    rows = _read(store, classifier, current, reference, most=settings.reference_rows)
    if len(rows) < settings.reference_rows:  # rows were removed meanwhile
        return current.model_copy(update={"live_rows": len(rows)})
    found = drift_reference(rows, has_embedding=reference.means is not None)
    if found is None:  # nearly all have values that are not numbers
        return current.model_copy(update={"live_after": current.last_row, "live_rows": 0})
    live = LiveReference(
        drift=found,
        rows=len(rows),
        taken_s=time.time(),
        told=_told(current, reference, rows=len(rows)),
        gap=gap_of(reference, rows),
    )
    return current.model_copy(update={"live": live, "bets": None})


def _read(store: Store, classifier: str, current: Current, reference: TestReference, *, most: int) -> Rows:
    """The first `most` rows that count, without their embeddings, which may take gigabytes."""
    parts: list[Rows] = []
    after, left = current.live_after, most
    while left:
        columns = read_columns(store, classifier, bundle=current.bundle, after=after, most=min(BATCH, left))
        if not len(columns.id):
            break
        parts.append(columns.watched(reference.class_means))
        after, left = int(columns.id[-1]), left - len(columns.id)
    return Rows.joined(parts)


def _told(current: Current, reference: TestReference, *, rows: int) -> str:
    if current.trusted:
        return f"{rows:,} live rows, which a person said to be as they should be"
    if reference.drift is None:
        return f"the first {rows:,} live rows, unchecked, since the test split has only {reference.rows} images"
    return f"the first {rows:,} live rows, in which the test split's detectors saw no change"


def gap_of(reference: TestReference, rows: Rows) -> tuple[Gap, ...]:
    """Return the differences of rows from the test split, measure by measure, and in the shares of the classes."""
    found = []
    for name, sample in reference.measures.items():
        column = rows.columns().get(name)
        values = np.empty(0) if column is None else column[np.isfinite(column)].astype(np.float64)
        if values.size:
            split = np.array(sample)
            live, of_test = quantiles(values), quantiles(split)
            found.append(Gap(measure=name, reference=of_test, live=live, distance=_largest_gap(split, values)))
    if len(rows):
        found.append(Gap(measure="class", reference=None, live=None, distance=_class_gap(reference, rows)))
    return tuple(found)


def _largest_gap(one: Floats, other: Floats) -> float:
    """Largest difference of two empirical distribution functions."""
    at = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(values), at, side="right") / values.size for values in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def _class_gap(reference: TestReference, rows: Rows) -> float:
    live, split = class_counts(rows.class_id), reference.predicted
    total = max(sum(split.values()), 1)
    return sum(abs(live.get(one, 0) / len(rows) - split.get(one, 0) / total) for one in live.keys() | split.keys()) / 2
