"""The step that an open turn is in, what it waits for, and the command that goes on. Nothing is changed or run."""

from collections.abc import Callable
from dataclasses import dataclass

from slipway.cli.turn_build import PersonNeededError, require_kept, why_gate
from slipway.cli.turn_release import (
    RejectedError,
    candidate_ports,
    require_labels,
    require_not_rolled_back,
    server_stages,
    why_candidate,
)
from slipway.cli.turn_run import Turn, spec_by_hand
from slipway.contract import GateError
from slipway.contract.evidence.gate import FILE_NAME, OldTest
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.operations.release.judge import ReleaseVerdict
from slipway.operations.release.trial import Trial
from slipway.operations.turn.record import TurnRecord
from slipway.system.text import command

READY = "nothing but the command below"


@dataclass(frozen=True)
class Waiting:
    """An open turn as it stands."""

    step: str
    waits_for: str
    """A phrase; with the command of the person who is waited for, if one is."""
    go_on: str
    """The command that goes on with the turn."""

    def lines(self) -> list[str]:
        return [f"step: {self.step}", f"waits for: {self.waits_for}", f"to go on: {self.go_on}"]


def waiting(turn: Turn, record: TurnRecord) -> Waiting:
    """Find the step of an open turn.

    Raises:
        SlipwayError: a file that the step needs is damaged.
    """
    steps: dict[str, Callable[[Turn, TurnRecord], str]] = {
        "new data": lambda turn, record: _made(turn, record, "data/grown.json"),
        "new run": _new_run,
        "old test split": _old_test,
        "candidate": lambda turn, record: READY if why_candidate(turn, record) else "",
        "candidate's server": _server,
        "comparison": _comparison,
        "verdict": _verdict,
    }
    go_on = command("slipway turn run", turn.gateway, turn.fleet_file, turn.classifier)
    for step, look in steps.items():
        try:
            waits_for = look(turn, record)
        except (PersonNeededError, GateError) as said:
            waits_for = f"a person: {said}"
        except RejectedError as said:
            waits_for = f"{READY}, which ends the turn, since the candidate is worse: {said}"
        if waits_for:
            return Waiting(step, waits_for, go_on)
    return Waiting("end", f"{READY}, which makes {record.run} active in {turn.fleet_file}", go_on)


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
    if found is not None and found.compared:
        require_labels(trial, turn)
    return READY


def _verdict(turn: Turn, _: TurnRecord) -> str:
    trial = Trial.open(turn.gateway)
    if trial.record.is_promoted:
        return ""
    judged = trial.judged().judgement
    if judged.verdict is ReleaseVerdict.FINE and trial.record.settings.approval == "human":
        promote = command("slipway release promote", turn.gateway, "--approved-by", "NAME")
        return f"a person: the candidate is fine, and a person promotes it: {promote}"
    if judged.verdict is ReleaseVerdict.TOO_FEW:
        return f"time and traffic, while the command below judges: {judged.reason}"
    return f"{READY}: {judged.reason}"
