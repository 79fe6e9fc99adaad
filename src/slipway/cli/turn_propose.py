"""Puts a proposal together from the watch's facts, the journal's labels and the active run."""

from datetime import UTC, datetime

from slipway.cli.turn_run import Turn
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.operations.journal.store import Store
from slipway.operations.release.record import now
from slipway.operations.turn.proposal import Proposal, calendar, drift, lost_accuracy, new_labels, watched_of
from slipway.operations.turn.record import read_turn
from slipway.operations.watch.facts import Facts
from slipway.operations.watch.status import status_of


def look(turn: Turn) -> Proposal:
    """Raises SlipwayError: the journal or the active run cannot be read."""
    bundle, settings = turn.old_bundle, turn.fleet.turn
    watched, missing = watched_of(facts_of(turn), bundle=bundle.id, settings_file=turn.gateway)
    dataset = Dataset.read(bundle.path / DATASET)
    with Store.of(turn.settings, make=False) as store:
        labels = new_labels(store, turn.classifier, dataset, settings, since_s=_since(turn))
    return Proposal(
        classifier=turn.classifier,
        bundle=bundle.id,
        time=now(),
        evidence=(
            lost_accuracy(watched, settings, missing=missing),
            drift(watched, settings, missing=missing, has_unknown=bundle.decision.unknown is not None),
            labels,
            calendar(bundle.manifest.created, settings, now=datetime.now(UTC)),
        ),
    )


def _since(turn: Turn) -> float | None:
    """Return the time when the former turn began, in seconds since the epoch, if approval is automatic: labels of that
    turn alone do not begin another one."""
    before = read_turn(turn.folder)
    if before is None or turn.fleet.turn.approval != "automatic":
        return None
    return datetime.fromisoformat(before.opened).timestamp()


def facts_of(turn: Turn) -> Facts | None:
    """Return the watch's facts on the classifier; None if it is not watched."""
    if turn.settings.watch is None:
        return None
    found = status_of(turn.settings).facts
    return next((one for one in found if one.classifier == turn.classifier), None)
