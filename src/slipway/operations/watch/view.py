"""Puts together what is known of a classifier: its state, the journal's newest rows, and the labels."""

from dataclasses import dataclass

import numpy as np

from slipway.operations.journal.reading import Columns, check_values, read_columns
from slipway.operations.journal.store import Store
from slipway.operations.watch.drift import DriftWatch
from slipway.operations.watch.facts import (
    LATEST_ROWS,
    Drift,
    Facts,
    Gap,
    GatewayLatency,
    Histogram,
    Inputs,
    PredictedClass,
    Watched,
)
from slipway.operations.watch.follow import Following
from slipway.operations.watch.labelled import accuracy_facts
from slipway.operations.watch.live import gap_of, missing
from slipway.operations.watch.reference import MIN_ROWS
from slipway.operations.watch.row_numbers import newest_after
from slipway.operations.watch.sentences import sentences
from slipway.operations.watch.state import HOUR_S, MINUTE_S, Current, SeenRows, WatchState
from slipway.operations.watch.test_split import (
    Pictures,
    TestReference,
    class_counts,
    confidence_bins,
    counted,
    pictures_of,
)
from slipway.steps.guard import STATUS_NAMES

UNKNOWN = -1


@dataclass(frozen=True)
class Sources:
    """Sources of the facts, beside the state."""

    store: Store
    following: Following | None
    """None without a reference."""
    problem: str = ""
    """A sentence on what prevents the watch from following this classifier."""


def facts_of(state: WatchState, sources: Sources, *, looked_s: float, latency: GatewayLatency | None) -> Facts:
    """Everything that is shown of one classifier."""
    seen, store = state.seen, sources.store
    found = _watched(state, sources)
    asked, given = _labels(store, state.classifier)
    return Facts(
        classifier=state.classifier,
        bundle=seen.bundle,
        looked_s=looked_s,
        told=sentences(state, found, store.settings_file, following=sources.following, problem=sources.problem),
        rows=seen.rows,
        rows_per_second=rate_of(seen, now_s=looked_s),
        last_s=seen.last_s,
        statuses=counted({status_name(one): rows for one, rows in seen.statuses.items()}),
        labels_asked=asked,
        labels_given=given,
        latency=latency,
        watched=found,
    )


def status_name(status: int) -> str:
    """The name of a STATUS; the journal has -1 where nobody knows it."""
    return STATUS_NAMES[status] if 0 <= status < len(STATUS_NAMES) else f"status {status}"


def rate_of(seen: SeenRows, *, now_s: float) -> float:
    """Rows per second in the hour before `now_s`, or since the first row if that is less, but for a minute at least."""
    if seen.first_s is None:
        return 0.0
    since = now_s - HOUR_S
    rows = sum(count for minute, count in seen.minutes.items() if since < (minute + 1) * MINUTE_S <= now_s + MINUTE_S)
    since_first = now_s - seen.first_s
    if since_first < 0:  # the clock was ahead
        since_first = HOUR_S
    return rows / min(HOUR_S, max(since_first, float(MINUTE_S)))


def _labels(store: Store, classifier: str) -> tuple[int, int]:
    """Rows that people were asked for, and rows with a label."""
    counts = [
        store.query(
            f"SELECT count(DISTINCT {table}.row) FROM {table} JOIN rows ON rows.id = row WHERE classifier = ?",
            [classifier],
        )
        for table in ("asked", "labels")
    ]
    return counts[0][0][0], counts[1][0][0]


def _watched(state: WatchState, sources: Sources) -> Watched | None:
    following, current = sources.following, state.current
    if following is None or current is None or current.bundle != following.reference.bundle:
        return None
    if state.seen.bundle not in (None, current.bundle):
        return None
    reference = following.reference
    latest = _latest(sources.store, state.classifier, current.bundle)
    pictures = _pictures(sources.store, state.classifier, current.bundle)
    accuracy, recalls = accuracy_facts(sources.store, reference, following.settings)
    confidence = latest.confidence[np.isfinite(latest.confidence)]
    lack = missing(current, reference, settings=following.settings)
    return Watched(
        since_s=current.since_s,
        test_rows=reference.rows,
        live_rows=None if current.live is None else current.live.rows,
        live_since_s=None if current.live is None else current.live.taken_s,
        live_told=lack if current.live is None else current.live.told,
        predicted=_predicted(current, reference, latest),
        confidence=Histogram(reference=reference.confidence, latest=confidence_bins(latest.confidence)),
        mean_confidence=float(confidence.mean()) if confidence.size else None,
        drift=_drift(current, following),
        accuracy=accuracy,
        recalls=recalls,
        gap=_gap(current, reference, latest),
        inputs=_inputs(reference.pictures, pictures),
        restarts=len(current.restarts),
    )


def _predicted(current: Current, reference: TestReference, latest: Columns) -> tuple[PredictedClass, ...]:
    names, newest = {UNKNOWN: "unknown", **dict(enumerate(reference.labels))}, class_counts(latest.class_id)
    ids = {*range(len(reference.labels)), *current.predicted, *reference.predicted, *newest}
    found = [
        PredictedClass(
            class_id=one,
            label=names.get(one, f"class {one}"),
            rows=current.predicted.get(one, 0),
            latest_rows=newest.get(one, 0),
            reference_rows=reference.predicted.get(one, 0),
        )
        for one in ids
    ]
    return tuple(sorted(found, key=lambda one: (-one.rows, one.class_id)))


def _drift(current: Current, following: Following) -> Drift | None:
    found = current.drift(following.reference)
    if found is None:
        return None
    source, reference = found
    asked = following.settings.rows_between_false_alarms
    bets = current.bets
    state = bets.state if bets else DriftWatch(reference).start(rows_between_false_alarms=asked)
    return Drift(
        source=source,
        reference_rows=reference.rows,
        rows=state.rows,
        since_s=bets.since_s if bets else None,
        log10_evidence=state.log10_evidence,
        log10_threshold=float(np.log10(asked)),
        alarm=bets.alarm if bets else None,
        history=bets.history if bets else (),
    )


def _gap(current: Current, reference: TestReference, latest: Columns) -> tuple[Gap, ...]:
    if current.live is not None:
        return current.live.gap
    return gap_of(reference, latest.watched(reference.class_means)) if len(latest.id) >= MIN_ROWS else ()


def _latest(store: Store, classifier: str, bundle: str) -> Columns:
    """The newest accepted rows, oldest first."""
    after = newest_after(store, classifier, bundle=bundle, most=LATEST_ROWS)
    return read_columns(store, classifier, bundle=bundle, after=after, most=LATEST_ROWS)


def _pictures(store: Store, classifier: str, bundle: str) -> Pictures:
    names = ("id", "format", "width", "height", "bytes", "brightness")
    found = store.query(
        f"SELECT {', '.join(names)} FROM rows WHERE classifier = ? AND bundle = ? AND status = 0 "
        "ORDER BY id DESC LIMIT ?",
        (classifier, bundle, LATEST_ROWS),
    )
    check_values(names, found, settings_file=store.settings_file)
    return pictures_of(
        [one[1] for one in found],
        [(one[2], one[3]) for one in found],
        [one[4] for one in found],
        [one[5] for one in found],
    )


def _inputs(reference: Pictures, latest: Pictures) -> Inputs:
    return Inputs(
        rows=latest.rows,
        formats=latest.formats,
        reference_formats=reference.formats,
        sizes=latest.sizes,
        reference_sizes=reference.sizes,
        shorter_side=latest.shorter_side,
        reference_shorter_side=reference.shorter_side,
        bytes=latest.bytes,
        reference_bytes=reference.bytes,
        brightness=Histogram(reference=reference.brightness, latest=latest.brightness),
    )
