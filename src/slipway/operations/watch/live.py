"""The live reference: what unchanged live rows look like, and how they differ from the test split.

Unchanged means one of three things. As a rule: the first rows after the deployment (or a restart), with no alarm of
the test split's detectors, and with evidence of at most 20 times the number of rows. The evidence of n unchanged rows
is n at most on average, so that they fail this in one deployment of 20 at most (Markov); then the watch waits until the
evidence falls. Or: a person said so (`slipway watch restart --live`). Or: the test split is too small for a check.
"""

import time

import numpy as np

from slipway.operations.journal.reading import read_columns
from slipway.operations.journal.store import Store
from slipway.operations.watch.facts import Gap
from slipway.operations.watch.measure import rows_of
from slipway.operations.watch.reference import Reference
from slipway.operations.watch.rows import Floats, Rows
from slipway.operations.watch.settings import WatchSettings
from slipway.operations.watch.state import Current, LiveReference
from slipway.operations.watch.test_split import (
    TestReference,
    class_counts,
    finite,
    quantiles,
    watched_measures,
)

MOST_TIMES_ROWS = 20.0
"""Largest evidence, in multiples of the number of rows, with which rows count as unchanged."""
_READ_TIMES = 4


def missing(current: Current, reference: TestReference, *, settings: WatchSettings) -> str:
    """Why there is no live reference yet, in words; empty if there is one, or if one may be taken."""
    if current.live is not None:
        return ""
    if current.live_rows < settings.reference_rows:
        return f"{current.live_rows:,} of {settings.reference_rows:,} live rows for a reference are there"
    if current.trusted or reference.drift is None or current.bets is None:
        return ""
    if current.bets.alarm is not None:
        return "an alarm is on, so that live rows make no reference until a restart"
    evidence, most = current.bets.state.log10_evidence, np.log10(MOST_TIMES_ROWS * max(current.bets.state.rows, 1))
    if evidence is not None and evidence > most:
        return f"the evidence of a change, 10^{evidence:.1f}, must fall to 10^{most:.1f} first"
    return ""


def live_reference(
    current: Current, reference: TestReference, *, store: Store, classifier: str, settings: WatchSettings
) -> Current:
    """Take the live reference if there are enough unchanged rows; the drift detectors then begin anew with it."""
    if current.live is not None or missing(current, reference, settings=settings):
        return current
    most = min(current.live_rows, _READ_TIMES * settings.reference_rows)
    columns = read_columns(store, classifier, bundle=current.bundle, after=current.live_after, most=most)
    means = None if reference.means is None else reference.means.arrays
    rows = rows_of(columns.confidence, columns.class_id, columns.brightness, columns.embedding, means)
    measures = watched_measures(rows, has_embedding=means is not None)
    usable = rows.take(np.flatnonzero(finite(rows, measures))[: settings.reference_rows])
    if len(usable) < settings.reference_rows:  # rows were removed, or have values that are not numbers
        return current
    live = LiveReference(
        drift=Reference.of(usable, measures=measures),
        rows=len(usable),
        taken_s=time.time(),
        told=_told(current, reference, rows=len(usable)),
        gap=gap_of(reference, usable),
    )
    return current.model_copy(update={"live": live, "bets": None})


def _told(current: Current, reference: TestReference, *, rows: int) -> str:
    if current.trusted:
        return f"{rows:,} live rows, which a person said to be as they should be"
    if reference.drift is None:
        return f"the first {rows:,} live rows, unchecked, since the test split has only {reference.rows} images"
    return f"the first {rows:,} live rows, in which the test split's detectors saw no change"


def gap_of(reference: TestReference, rows: Rows) -> tuple[Gap, ...]:
    """How rows differ from the test split, measure by measure, and in the shares of the classes."""
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
