"""Follows the rows of one classifier: each is counted once and fed to the drift detectors once, whatever is killed."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from slipway.operations.journal.reading import Columns, check_values, read_columns
from slipway.operations.journal.store import Store
from slipway.operations.watch.drift import DriftState, DriftWatch
from slipway.operations.watch.facts import MOST_POINTS, DriftAlarm, Point
from slipway.operations.watch.live import live_reference
from slipway.operations.watch.restarts import Restart
from slipway.operations.watch.row_numbers import count_between, newest_ever, row_before
from slipway.operations.watch.rows import Rows
from slipway.operations.watch.settings import WatchSettings
from slipway.operations.watch.state import HOUR_S, MINUTE_S, Current, DriftDetection, SeenRows, WatchState, digest_of
from slipway.operations.watch.test_split import TestReference, class_counts

BATCH = 2_000
ADVANCE = 10_000
"""Rows of others after which they are passed over for good, so that no look reads them again."""
Say = Callable[[str], None]
_CLASS = re.compile(r"^class (-?\d+) is")


@dataclass(frozen=True)
class Following:
    """The references with which a classifier's rows are compared."""

    reference: TestReference
    digest: str
    settings: WatchSettings

    @classmethod
    def of(cls, reference: TestReference, settings: WatchSettings) -> Self:
        return cls(reference, digest_of(reference), settings)


def count_rows(store: Store, state: WatchState, *, keep: Callable[[WatchState], None]) -> WatchState:
    """Count every row that is not counted yet, in batches.

    Raises:
        DataError: a row has values that no collector writes.
    """
    names = ("id", "time_s", "arm", "bundle", "status")
    while True:
        found = store.query(
            f"SELECT {', '.join(names)} FROM rows WHERE classifier = ? AND id > ? ORDER BY id LIMIT ?",
            (state.classifier, state.seen.last_row, BATCH),
        )
        if not found:
            return state
        check_values(names, found, settings_file=store.settings_file)
        state = state.model_copy(update={"seen": _counted(state.seen, found)})
        keep(state)


def _counted(seen: SeenRows, found: list[tuple[int, float, str, str | None, int]]) -> SeenRows:
    times = [time_s for _, time_s, _, _, _ in found]
    statuses = Counter({int(name): count for name, count in seen.statuses.items()})
    statuses.update(status for *_, status in found)
    minutes = Counter(seen.minutes)
    minutes.update(int(time_s // MINUTE_S) for time_s in times)
    newest = int(times[-1] // MINUTE_S)  # not the largest: a clock may have been ahead once
    stable = [bundle for _, _, arm, bundle, _ in found if arm == "stable" and bundle]
    return SeenRows(
        last_row=found[-1][0],
        rows=seen.rows + len(found),
        statuses=dict(statuses),
        first_s=times[0] if seen.first_s is None else seen.first_s,
        last_s=times[-1],
        bundle=stable[-1] if stable else seen.bundle,
        minutes={minute: count for minute, count in minutes.items() if 0 <= newest - minute < HOUR_S / MINUTE_S},
    )


def begin(state: WatchState, following: Following, *, say: Say) -> WatchState:
    """The state that fits the reference: a new one for another bundle, or where the reference was made again.

    For another bundle every entry of the log is carried out again: those of this bundle say after which of its rows
    drift is watched.
    """
    reference, current = following.reference, state.current
    if current is None or current.bundle != reference.bundle or current.reference != following.digest:
        same = current if current is not None and current.bundle == reference.bundle else None
        after = same.last_row if same is not None else 0
        said = f"watches the bundle {reference.bundle:.12} with the {reference.rows:,} images of its test split"
        say(f"{state.classifier}: {said}")
        current = Current(
            bundle=reference.bundle,
            reference=following.digest,
            since_s=time.time(),
            last_row=after,
            live_after=after,
            restarts=same.restarts if same is not None else (),
        )
    bets = current.bets
    asked = following.settings.rows_between_false_alarms
    if bets is not None and bets.state.rows_between_false_alarms != asked:  # the evidence is the same for any limit
        changed = bets.state.model_copy(update={"rows_between_false_alarms": asked})
        current = current.model_copy(update={"bets": bets.model_copy(update={"state": changed})})
    return state.model_copy(update={"current": current})


def restarted(current: Current, entries: tuple[Restart, ...], *, store: Store, classifier: str) -> Current:
    """Carry out the entries of the log that are not carried out yet: drift begins anew after the last one's row.

    Entries of another bundle, and of an earlier journal, whose rows this one never had, change nothing. A log that was
    moved away has no part in this: an entry is known by its time, not by its place.
    """
    newest = newest_ever(store)
    for entry in entries:
        if entry.time_s in current.restarts or entry.bundle != current.bundle or entry.after_row > newest:
            continue
        changes: dict[str, object] = {"bets": None, "last_row": max(current.last_row, entry.after_row)}
        if current.live is None:  # rows of before the restart were not as they should be
            changes |= {"live_after": changes["last_row"], "live_rows": 0}
        if (after := entry.live_after) is not None:
            fed = max(current.last_row, entry.after_row)  # rows that came after the restart may have been fed already
            count = count_between(store, classifier, bundle=current.bundle, after=after, until=fed)
            changes |= {"live": None, "live_after": after, "live_rows": count, "trusted": True}
        current = current.model_copy(update=changes)
    done = tuple(sorted({*current.restarts, *(entry.time_s for entry in entries)}))
    return current.model_copy(update={"restarts": done})


def feed(
    store: Store, state: WatchState, following: Following, *, keep: Callable[[WatchState], None], say: Say
) -> WatchState:
    """Feed every row that was not fed yet to the drift detectors, in batches that are kept one by one."""
    current = state.current
    assert current is not None, "begin has made it"
    reference, settings = following.reference, following.settings
    while True:
        before = current
        current = live_reference(current, reference, store=store, classifier=state.classifier, settings=settings)
        if current.live is not None and before.live is None:
            say(f"{state.classifier}: a live reference is taken for drift: {current.live.told}")
        ((newest,),) = store.query("SELECT coalesce(max(id), 0) FROM rows")
        most = BATCH
        if current.live is None and current.live_rows < settings.reference_rows:
            most = min(BATCH, settings.reference_rows - current.live_rows)  # a live reference begins where it is full
        columns = read_columns(store, state.classifier, bundle=current.bundle, after=current.last_row, most=most)
        count = len(columns.id)
        if count:
            current = _fed(current, columns, following, store=store)
        last = int(columns.id[-1]) if count else current.last_row
        if count < most and newest - last > ADVANCE:  # no row with a smaller number comes later: one writes at a time
            last = newest
        current = current.model_copy(update={"last_row": last})
        if current != before:
            state = state.model_copy(update={"current": current})
            keep(state)
        if count < most:
            return state


def _fed(current: Current, columns: Columns, following: Following, *, store: Store) -> Current:
    found = current.drift(following.reference)
    bets = current.bets
    if found is not None:
        source, reference = found
        watch = DriftWatch(reference)
        if bets is None:
            asked = following.settings.rows_between_false_alarms
            started = watch.start(rows_between_false_alarms=asked)
            bets = DriftDetection(
                source=source, state=started, after_row=current.last_row, since_s=float(columns.time_s[0])
            )
        rows = columns.watched(following.reference.class_means)
        if not any(event.detector == "brightness" for event in reference.events):
            rows = Rows(rows.confidence, rows.distance, rows.norm, rows.class_id)
        before = bets.state
        bets = _with_history(bets, watch.feed(before, rows), time_s=float(columns.time_s[-1]))
        if bets.alarm is None and bets.state.alarm is not None:
            alarm = _alarm(bets, columns, before, store=store, reference=following.reference)
            bets = bets.model_copy(update={"alarm": alarm})
    predicted = Counter(current.predicted)
    predicted.update(class_counts(columns.class_id))
    return current.model_copy(
        update={
            "rows": current.rows + len(columns.id),
            "live_rows": current.live_rows + len(columns.id),
            "predicted": dict(predicted),
            "bets": bets,
        }
    )


def _with_history(bets: DriftDetection, state: DriftState, *, time_s: float) -> DriftDetection:
    points = list(bets.history)
    if state.log10_evidence is not None:
        points.append(Point(time_s=time_s, row=state.rows, log10_evidence=state.log10_evidence))
    if len(points) > MOST_POINTS:  # leave out the inner point whose neighbours are nearest
        gaps = np.array([points[n + 1].row - points[n - 1].row for n in range(1, len(points) - 1)])
        del points[1 + int(gaps.argmin())]
    return bets.model_copy(update={"state": state, "history": tuple(points)})


def _alarm(
    bets: DriftDetection, columns: Columns, before: DriftState, *, store: Store, reference: TestReference
) -> DriftAlarm:
    found, labels = bets.state.alarm, reference.labels
    assert found is not None, "the caller has asked"
    at, back = found.row - before.rows, found.row - found.since_row
    began = row_before(
        store, reference.classifier, bundle=reference.bundle, after=bets.after_row, at=int(columns.id[at]), back=back
    )
    return DriftAlarm(
        row=found.row,
        since_row=found.since_row,
        time_s=float(columns.time_s[at]),
        since_s=None if began is None else began[1],
        journal_row=int(columns.id[at]),
        since_journal_row=None if began is None else began[0],
        detector=found.detector,
        event=_CLASS.sub(lambda match: f"class {_label(int(match[1]), labels)} is", found.event),
    )


def _label(class_id: int, labels: tuple[str, ...]) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else "unknown" if class_id == -1 else str(class_id)
