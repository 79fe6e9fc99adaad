"""The step that an open turn is in, what it waits for, and the command that continues it. Nothing is changed or run."""

from collections.abc import Callable
from dataclasses import dataclass

from slipway.cli.turn_build import PersonNeededError, require_kept, why_gate
from slipway.cli.turn_release import (
    IMAGES,
    RejectedError,
    candidate_ports,
    images_in_journal,
    require_labels,
    require_not_rolled_back,
    server_stages,
    why_candidate,
)
from slipway.cli.turn_run import Turn, spec_by_hand
from slipway.contract import SlipwayError
from slipway.contract.evidence.gate import FILE_NAME, OldTest
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.operations.release.disagreements import Tally
from slipway.operations.release.judge import ReleaseVerdict
from slipway.operations.release.lock import holder_of
from slipway.operations.release.trial import Trial
from slipway.operations.turn.record import LOCK, TurnRecord
from slipway.system.text import command

READY = "nothing but the command below"
_Look = Callable[[Turn, TurnRecord], str]
"""Returns what a step waits for; nothing if it is done."""


@dataclass(frozen=True)
class Waiting:
    """An open turn as it stands."""

    step: str
    waits_for: str
    """A phrase; with the command of the person who is waited for, if one is."""
    go_on: str
    """The command that continues the turn."""

    def lines(self) -> list[str]:
        return [f"step: {self.step}", f"waits for: {self.waits_for}", f"to go on: {self.go_on}"]


def waiting(turn: Turn, record: TurnRecord) -> Waiting:
    """Find the step of an open turn. A step that cannot be looked at, such as one of a damaged file, needs a person."""
    step, waits_for = _step(turn, record)
    if waits_for.startswith(READY) and (holder := holder_of(turn.settings.folder, file=LOCK)):
        waits_for = f"a run that is at work: {holder}"
    return Waiting(step, waits_for, command("slipway turn run", turn.gateway, turn.fleet_file, turn.classifier))


def _step(turn: Turn, record: TurnRecord) -> tuple[str, str]:
    """Return the first step that is not done, and what it waits for."""
    steps: dict[str, _Look] = {
        "new data": lambda turn, record: _made(turn, record, "data/grown.json"),
        "new run": _new_run,
        "old test split": _old_test,
        "candidate": lambda turn, record: READY if why_candidate(turn, record) else "",
        "candidate's server": _server,
        "comparison": _comparison,
        "verdict": _verdict,
    }
    if turn.old_run != record.run:
        for step, look in steps.items():
            if waits_for := _said(look, turn, record):
                return step, waits_for
    return "end", _said(_end, turn, record)


def _said(look: _Look, turn: Turn, record: TurnRecord) -> str:
    try:
        return look(turn, record)
    except (PersonNeededError, SlipwayError) as said:
        return f"a person: {said}"
    except RejectedError as said:
        return f"{READY}, which ends the turn, since the candidate is worse: {said}"


def _made(turn: Turn, record: TurnRecord, file: str) -> str:
    return "" if (turn.below(record.run) / file).is_file() else READY


def _new_run(turn: Turn, record: TurnRecord) -> str:
    if said := spec_by_hand(turn, record):
        return f"a person: {said}"
    return _made(turn, record, f"bundle/{MANIFEST}")


def _old_test(turn: Turn, record: TurnRecord) -> str:
    run = turn.below(record.run)
    if why := why_gate(turn.below(record.old_run), run, turn.engine_of()):
        return f"{READY}: {why}"
    require_kept(turn, record, OldTest.read(run / FILE_NAME))
    return ""


def _server(turn: Turn, record: TurnRecord) -> str:
    trial = Trial.open(turn.gateway)
    if trial.record.is_promoted:
        return ""
    require_not_rolled_back(trial, turn)
    stages = server_stages(trial, candidate_ports(turn), serve=False, run=turn.below(record.run))
    return READY if any(stages) else ""


def _comparison(turn: Turn, record: TurnRecord) -> str:
    trial = Trial.open(turn.gateway)
    if trial.record.is_promoted or trial.traffic.weight_percent:
        return ""
    found = trial.judged().tallies.get(record.classifier)
    if found is None or not found.compared:
        return READY
    try:
        require_labels(trial, turn)
    except PersonNeededError:
        if not _compares_on(trial, turn, found):
            raise
    return READY


def _compares_on(trial: Trial, turn: Turn, found: Tally) -> bool:
    """Whether people have answered all questions, and the next comparison asks more of them or takes more images."""
    if found.open:
        return False
    there, left = images_in_journal(trial, turn)
    return found.differing > found.asked + found.gone or (left > 0 and there <= IMAGES)


def _verdict(turn: Turn, _: TurnRecord) -> str:
    trial = Trial.open(turn.gateway)
    if trial.record.is_promoted:
        return ""
    settings, judged = trial.record.settings, trial.judged().judgement
    is_late = judged.hours >= settings.judge.max_hours
    if judged.verdict is ReleaseVerdict.FINE and (settings.approval == "human" or is_late):
        promote = command("slipway release promote", turn.gateway, "--approved-by", "NAME")
        return f"a person: the candidate is fine, and a person promotes it: {promote}"
    if judged.expired or (judged.verdict is ReleaseVerdict.WORSE and settings.rollback == "human"):
        return f"a person: {judged.reason}; end the trial: {command('slipway release rollback', turn.gateway)}"
    if judged.verdict is ReleaseVerdict.TOO_FEW:
        few = [one.series for one in judged.series if one.verdict is ReleaseVerdict.TOO_FEW]
        decide = dict.fromkeys("labels or compared images" if one == "disagreements" else "traffic" for one in few)
        return f"{', and '.join(decide) or 'time'}, while turn run judges: {judged.reason}"
    return f"{READY}: {judged.reason}"


def _end(turn: Turn, record: TurnRecord) -> str:
    if turn.old_run != record.run:
        return f"{READY}, which makes {record.run} active in {turn.fleet_file}"
    _ = turn.old_bundle  # raises unless it is served
    return f"{READY}, which ends the turn"
