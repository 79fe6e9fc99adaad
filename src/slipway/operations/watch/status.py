"""Status of the watch, for people and for `--json`: from its files and the journal, whether it runs or not."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import DataError, SpecError
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.status import time_text
from slipway.operations.journal.store import Store
from slipway.operations.watch.facts import AccuracyFacts, Drift, Facts, GatewayLatency, Watched
from slipway.operations.watch.follow import Following
from slipway.operations.watch.latency import LatencyReader
from slipway.operations.watch.restarts import Restart, read_restarts
from slipway.operations.watch.run import classifiers, still_served
from slipway.operations.watch.settings import WatchSettings
from slipway.operations.watch.state import WatchState, lock_of
from slipway.operations.watch.test_split import read_reference
from slipway.operations.watch.view import Sources, facts_of
from slipway.system.text import command, shown

LATE_S = 30.0
"""Seconds since the last look after which the watch is said not to run."""


@dataclass(frozen=True)
class WatchStatus:
    """The classifiers of a journal, and whether somebody looks at it."""

    journal: Path
    settings_file: Path
    looked_s: float | None
    """Unix time of the watch's last look; None if it never looked."""
    facts: tuple[Facts, ...]
    restarts: dict[str, tuple[Restart, ...]]
    gone: tuple[str, ...]
    """Classifiers with rows that are no longer served."""

    def plain(self) -> dict[str, Any]:
        return {
            "journal": str(self.journal),
            "looked_s": self.looked_s,
            "classifiers": [{**one.plain(), "alarms": one.alarms} for one in self.facts],
            "restarts": {name: [one.plain() for one in entries] for name, entries in self.restarts.items()},
        }

    def lines(self) -> list[str]:
        lines = [f"{self.journal}: {self._looked()}"]
        for facts in self.facts:
            lines += _lines(facts)
            for entry in self.restarts.get(facts.classifier, ())[-3:]:
                live = ", live traffic as reference" if entry.live_after is not None else ""
                lines.append(f"  restarted {time_text(entry.time_s)} by {shown(entry.by)}{live}: {shown(entry.reason)}")
        if self.gone:
            lines.append(f"not in the repository any more, and left out: {shown(', '.join(self.gone))}")
        return lines

    def _looked(self) -> str:
        run = command("slipway watch run", self.settings_file)
        if self.looked_s is None:
            return f"nobody has watched it yet; {run} does"
        if abs(time.time() - self.looked_s) > LATE_S:
            return f"the last look was at {time_text(self.looked_s)}, and figures are of then; {run} goes on"
        return f"watched, the last look was at {time_text(self.looked_s)}"


def status_of(settings: GatewaySettings) -> WatchStatus:
    """Read what the watch keeps, without changing it.

    Raises:
        SpecError: the journal is not there.
        StorageError: the journal cannot be read.
    """
    assert settings.watch is not None, "the verb has checked it"
    lock, latency = lock_of(settings.journal), LatencyReader(settings).latest()
    with Store.of(settings, make=False) as store:
        looked_s = lock.stat().st_mtime if lock.exists() else None
        known = [
            _known(name, store, settings.watch, looked_s=looked_s or time.time(), latency=latency.get(name))
            for name in sorted(classifiers(store)[0])
        ]
    restarts = {facts.classifier: entries for facts, entries in known}
    served = tuple(still_served([facts for facts, _ in known], settings))
    gone = tuple(sorted(restarts.keys() - {facts.classifier for facts in served}))
    return WatchStatus(settings.journal, settings.file, looked_s, served, restarts, gone)


def _known(
    name: str, store: Store, settings: WatchSettings, *, looked_s: float, latency: GatewayLatency | None
) -> tuple[Facts, tuple[Restart, ...]]:
    """Return the facts on one classifier. A damaged file of it is reported, and harms no other."""
    state, entries = WatchState(classifier=name), tuple[Restart, ...]()
    try:
        state, entries = WatchState.load(store.folder, name), read_restarts(store.folder, name)
        reference = read_reference(store.folder, name)
        sources = Sources(store, None if reference is None else Following.of(reference, settings))
        return facts_of(state, sources, looked_s=looked_s, latency=latency), entries
    except (SpecError, DataError) as error:
        sources = Sources(store, None, f"alert: {name} is not watched: {error}")
        return facts_of(state, sources, looked_s=looked_s, latency=latency), entries


def watched_state(store: Store, classifier: str) -> WatchState:
    """The state of a classifier that is watched.

    Raises:
        SpecError: it is not watched.
    """
    state = WatchState.load(store.folder, classifier)
    if state.current is None:
        known = ", ".join(sorted(classifiers(store)[0])) or "none"
        raise SpecError(
            f"{classifier}: it is not watched, so there is nothing to restart; classifiers of this journal: {known}"
        )
    return state


def check_no_alarm(store: Store, classifier: str, *, bundle: str) -> None:
    """Raises SpecError while an alarm of drift of this bundle is on, which a new reference would end unseen."""
    current = WatchState.load(store.folder, classifier).current
    if current is not None and current.bundle == bundle and current.bets is not None and current.bets.alarm is not None:
        alarm = current.bets.alarm
        restart = f"{command('slipway watch restart', store.settings_file)} {classifier} --reason TEXT"
        raise SpecError(
            f"{classifier}: an alarm of this bundle is on ({shown(alarm.event)}), and a new reference would end it; "
            f"deal with it first: {restart}"
        )


def _lines(facts: Facts) -> list[str]:
    statuses = ", ".join(f"{one.name} {one.rows:,}" for one in facts.statuses)
    bundle = "no row yet" if facts.bundle is None else f"bundle {facts.bundle:.12}"
    last = f", the last at {time_text(facts.last_s)}" if facts.last_s is not None else ""
    lines = [f"{facts.classifier}: {bundle}; {facts.rows:,} rows{last}, {facts.rows_per_second:.3g} a second"]
    lines.append(f"  status: {statuses or 'none'}")
    if facts.latency is not None and facts.latency.p99_ms is not None:
        lines.append(
            f"  P99 at the gateway {facts.latency.when}: at most {facts.latency.p99_ms:g} ms, "
            f"budget {facts.latency.budget}"
        )
    if facts.watched is not None:
        lines += _watched_lines(facts.watched)
    lines.append(f"  labels: {facts.labels_asked:,} asked, {facts.labels_given:,} given")
    return [*lines, *(f"  {sentence}" for sentence in facts.told)]


def _watched_lines(found: Watched) -> list[str]:
    confidence = "" if found.mean_confidence is None else f"; mean confidence of the newest {found.mean_confidence:.3f}"
    lines = [
        f"  watched since {time_text(found.since_s)}, with {found.test_rows:,} images of the test split{confidence}"
    ]
    if found.drift is not None:
        lines.append(f"  drift: {drift_words(found.drift)}")
    if found.live_told:
        lines.append(f"  live reference: {found.live_told}")
    if found.gap:
        gaps = ", ".join(f"{one.measure} {one.distance:.2f}" for one in found.gap)
        lines.append(f"  live rows beside the test split (0 equal, 1 disjoint): {gaps}")
    lines.append(f"  accuracy: {_accuracy(found.accuracy)}")
    for one in found.recalls:
        if one.alarm and one.estimate is not None and one.reference is not None:
            estimate = one.estimate
            lines.append(
                f"  recall of {shown(one.label)}: {estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}, "
                f"{estimate.labels} labels), {one.reference:.1%} on the test split"
            )
    return lines


def drift_words(drift: Drift) -> str:
    """The evidence beside the threshold, and what it means."""
    against = f"the {'test split' if drift.source == 'test' else 'live reference'}, {drift.rows:,} rows"
    if drift.log10_evidence is None:
        return f"no row yet, against {against}"
    evidence = f"evidence 10^{drift.log10_evidence:.1f}, alarm at 10^{drift.log10_threshold:.1f}"
    if drift.alarm is not None:
        return f"CHANGED, {shown(drift.alarm.event)} ({evidence}; against {against})"
    usual = drift.log10_evidence <= math.log10(20 * max(drift.rows, 1))
    return f"{'no sign of a change' if usual else 'a change is likely'} ({evidence}; against {against})"


def _accuracy(accuracy: AccuracyFacts) -> str:
    reference = f"{accuracy.reference:.1%} on the test split"
    if accuracy.estimate is None:
        return f"unknown without labels; {reference}"
    found = accuracy.estimate
    lower = "LOWER: " if accuracy.alarm else ""
    return f"{lower}{found.value:.1%} ({found.low:.1%} to {found.high:.1%}, {found.labels} labels); {reference}"
