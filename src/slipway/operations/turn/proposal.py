"""Looks for reasons to train a classifier again, and writes them down with their evidence."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from slipway.contract.dataset import Dataset
from slipway.contract.turn import FleetTurn
from slipway.contract.typed_file import Contract
from slipway.operations.journal.store import Store
from slipway.operations.labels.truth import truths
from slipway.operations.watch.facts import Facts, Watched
from slipway.system.targets import write_file
from slipway.system.text import command, few

Trigger: TypeAlias = Literal["lost accuracy", "drift", "new labels", "calendar", "a person"]
FILE = "proposal.json"
_UNKNOWN = -1
"""Class id of the answer `unknown`."""


class TriggerEvidence(Contract):
    """The evidence of one trigger."""

    trigger: Trigger
    is_reason: bool
    said: str


class Proposal(Contract):
    """`proposal.json`: the reasons to train one classifier again, at one time."""

    classifier: str
    bundle: str
    """Id of the bundle that answers now."""
    time: str
    evidence: tuple[TriggerEvidence, ...]

    @property
    def reasons(self) -> list[TriggerEvidence]:
        return [one for one in self.evidence if one.is_reason]

    def with_person(self, reason: str) -> "Proposal":
        """Return this proposal with the reason of a person."""
        added = TriggerEvidence(trigger="a person", is_reason=True, said=reason)
        return self.model_copy(update={"evidence": (*self.evidence, added)})

    def keep(self, folder: Path) -> None:
        """Raises StorageError: the file cannot be written."""
        write_file(folder / FILE, self.to_json())

    def lines(self) -> list[str]:
        return [f"{'→' if one.is_reason else ' '} {one.trigger}: {one.said}" for one in self.evidence]


def lost_accuracy(watched: Watched | None, settings: FleetTurn, *, missing: str) -> TriggerEvidence:
    if not settings.lost_accuracy:
        return _off("lost accuracy", "lost_accuracy: false")
    if watched is None:
        return TriggerEvidence(trigger="lost accuracy", is_reason=False, said=missing)
    found, estimate = watched.accuracy, watched.accuracy.estimate
    if estimate is None:
        return TriggerEvidence(trigger="lost accuracy", is_reason=False, said="not known without a label")
    worse = [one.label for one in watched.recalls if one.alarm]
    shown = (
        f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}) by {estimate.labels:,} labels, "
        f"{found.reference:.1%} on the test split"
    )
    recall = f"; recall proved to be lost: {', '.join(worse)}" if worse else ""
    proved = f"; a loss of over {found.points:g} points is {'proved' if found.alarm else 'not proved'}"
    return TriggerEvidence(
        trigger="lost accuracy", is_reason=bool(found.alarm or worse), said=f"{shown}{proved}{recall}"
    )


def drift(watched: Watched | None, settings: FleetTurn, *, missing: str, has_unknown: bool = True) -> TriggerEvidence:
    """An alarm alone may be a change that costs nothing; with more `unknown` answers the network meets what it does not
    know.

    Args:
        missing: why the watch has no facts on the classifier, or no drift among them.
        has_unknown: whether the classifier's decision has the answer `unknown` at all.
    """
    if settings.unknown_points is None:
        return _off("drift", "unknown_points: null")
    if watched is None or watched.drift is None:
        return TriggerEvidence(trigger="drift", is_reason=False, said=missing)
    alarm = watched.drift.alarm
    said = f"alarm: {alarm.event}, since row {alarm.since_row:,}" if alarm else "no alarm"
    if not has_unknown:
        never = (
            "the classifier never answers unknown (decision.unknown in the spec), so that drift is no reason by itself"
        )
        return TriggerEvidence(trigger="drift", is_reason=False, said=f"{said}; {never}")
    now, before = _unknown_share(watched, "latest_rows"), _unknown_share(watched, "reference_rows")
    rise = 100 * (now - before)
    shares = f"{now:.1%} of the newest answers are unknown, {before:.1%} on the test split"
    return TriggerEvidence(
        trigger="drift",
        is_reason=alarm is not None and rise >= settings.unknown_points,
        said=f"{said}; {shares}; a reason with an alarm and from {settings.unknown_points:g} points more on",
    )


def _unknown_share(watched: Watched, column: Literal["latest_rows", "reference_rows"]) -> float:
    total = sum(getattr(one, column) for one in watched.predicted)
    unknown = sum(getattr(one, column) for one in watched.predicted if one.class_id == _UNKNOWN)
    return unknown / total if total else 0.0


def new_labels(
    store: Store, classifier: str, dataset: Dataset, settings: FleetTurn, *, since_s: float | None = None
) -> TriggerEvidence:
    """Labelled images that are kept and that the active run does not have.

    Args:
        since_s: Unix time from which a label of an image counts, such as the beginning of the turn before.
    """
    if settings.new_labels is None:
        return _off("new labels", "new_labels: null")
    known = {image.sha256 for image in dataset.images}
    labelled = truths(store, classifier)
    hashes = dict(
        store.query(
            "SELECT id, sha256 FROM rows WHERE classifier = ? AND kept = 1 AND id IN "
            "(SELECT row FROM labels WHERE ? IS NULL OR labelled_s >= ?)",
            (classifier, since_s, since_s),
        )
    )
    new = {hashes[row] for row in labelled if hashes.get(row)} - known
    foreign = sorted({label for row, label in labelled.items() if hashes.get(row) in new} - {*dataset.labels})
    after = "" if since_s is None else ", labelled since the turn before began"
    classes = f", with new classes: {few(foreign)}" if foreign else ""
    said = f"{len(new):,} labelled images that the active run does not have{after}{classes}"
    return TriggerEvidence(
        trigger="new labels",
        is_reason=len(new) >= settings.new_labels,
        said=f"{said}; a reason from {settings.new_labels:,} on",
    )


def calendar(created: str | None, settings: FleetTurn, *, now: datetime) -> TriggerEvidence:
    if settings.every_days is None:
        return _off("calendar", "every_days: null")
    if created is None:
        return TriggerEvidence(trigger="calendar", is_reason=False, said="the active run does not say when it was made")
    made = datetime.fromisoformat(created)
    days = (now - made.replace(tzinfo=made.tzinfo or UTC)).total_seconds() / 86_400
    if days < 0:
        said = f"the active run is of {created}, which is yet to come; look at the clocks of both machines"
        return TriggerEvidence(trigger="calendar", is_reason=False, said=said)
    said = f"the active run is {days:.0f} days old; a reason from {settings.every_days:g} on"
    return TriggerEvidence(trigger="calendar", is_reason=days >= settings.every_days, said=said)


def watched_of(facts: Facts | None, *, bundle: str, settings_file: Path) -> tuple[Watched | None, str]:
    """Return the watch's facts on this bundle, and the reason why there are none, or why drift is not among them."""
    if facts is None:
        return None, f"not watched (watch: in {settings_file}, {command('slipway watch run', settings_file)})"
    if facts.bundle is None:
        return None, "the watch has seen no row yet"
    if facts.bundle != bundle:
        return None, f"the watch follows bundle {facts.bundle:.12}, not {bundle:.12}"
    if facts.watched is None:
        make = command("slipway watch reference", settings_file, "RUN", "--classifier", facts.classifier)
        return None, f"no reference; with the run that made the bundle: {make}"
    return facts.watched, f"not watched yet; {command('slipway watch status', settings_file)} says why"


def _off(trigger: Trigger, key: str) -> TriggerEvidence:
    return TriggerEvidence(trigger=trigger, is_reason=False, said=f"not looked at (turn: {{{key}}})")
