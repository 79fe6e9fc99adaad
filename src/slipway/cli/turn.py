"""One cycle of retraining: a reason, new data, a new run, the old test split, a candidate, and its trial."""

import argparse
import getpass
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.system.json_line import add_actions, print_json, verb_parser
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.cli.turn_build import Stage
    from slipway.cli.turn_run import Turn
    from slipway.operations.turn.proposal import Proposal
    from slipway.operations.turn.record import Outcome, TurnRecord

EPILOG = """example:
  slipway turn propose gateway.yaml fleet.yaml digits
  slipway turn run gateway.yaml fleet.yaml digits --approved-by "A. Lee"
  slipway turn status gateway.yaml fleet.yaml digits

fleet.yaml:
  turn:
    new_labels: 200          # labelled images that the active run does not have
    unknown_points: 5        # rise of unknown answers, with an alarm of drift
    lost_accuracy: true      # the watch's alarm on accuracy, or on a class
    every_days: 90           # age of the active run
    approval: human          # or automatic: a reason alone begins a turn

propose prints the evidence and writes it to proposal.json in the journal. It exits with 0 if it has a reason, and with
2 if not. run calls existing verbs and prints each before it runs: labels dataset, the stages of slipway up (or slipway
head), turn gate, release candidate, compare, weight and judge. What is current is not repeated: after an error, Ctrl-C
or a kill the same command continues.

Where a person has to act, run says so with the exact command and exits with 2: to approve the turn, to start the
candidate's server (or --serve), to label, to accept what the old test split cannot prove, to promote. Then call it
again. It exits with 0 once the candidate is promoted, and with 1 if it is worse or a stage failed (docs/turn.md)."""
WAITS = 2


def main(arguments: argparse.Namespace) -> int | None:
    code: int | None = arguments.run(arguments)
    return code


def _open(arguments: argparse.Namespace) -> "Turn":
    from slipway.cli.turn_run import Turn  # not at the top: --help needs no library

    return Turn.open(arguments.gateway, arguments.fleet, arguments.classifier)


def propose(arguments: argparse.Namespace) -> int:
    turn = _open(arguments)
    proposal = _proposed(turn)
    reasons = proposal.reasons
    print(f"{turn.classifier}: {len(reasons)} reasons for a turn; {turn.folder / 'proposal.json'}")
    for line in proposal.lines():
        print(f"  {line}")
    if reasons:
        approved = () if turn.fleet.turn.approval == "automatic" else ("--approved-by", "NAME")
        names = (turn.gateway, turn.fleet_file, turn.classifier)
        print(f"  next: {command('slipway turn run', *names, *approved)}")
    print_json(arguments, {**proposal.plain(), "reasons": len(reasons)})
    return 0 if reasons else WAITS


def _proposed(turn: "Turn") -> "Proposal":
    from slipway.cli.turn_propose import look

    proposal = look(turn)
    proposal.keep(turn.folder)
    return proposal


def run(arguments: argparse.Namespace) -> int:
    from slipway.operations.release.lock import only_operator
    from slipway.operations.turn.record import LOCK, read_turn

    turn = _open(arguments)
    with only_operator(turn.settings.folder, f"turn of {turn.classifier}", file=LOCK):
        record = turn.record or _begun(turn, arguments)
        if isinstance(record, int):
            return record
        if arguments.accept:
            record = record.accept(arguments.accept, by=getpass.getuser())
            record.keep(turn.folder)
        code = _turned(turn, record, serve=arguments.serve)
        print_json(arguments, {"record": (read_turn(turn.folder) or record).plain(), "exit": code})
    return code


def _begun(turn: "Turn", arguments: argparse.Namespace) -> "TurnRecord | int":
    """The record of a new turn; an exit code if it has no reason or no approval."""
    from slipway.operations.release.record import now
    from slipway.operations.turn.record import TurnRecord, keep_earlier, read_turn

    if arguments.reason and not arguments.approved_by:
        raise SpecError("--reason TEXT needs --approved-by NAME: the reason is that person's")
    proposal = _proposed(turn)
    if arguments.reason:
        proposal = proposal.with_person(arguments.reason)
    for line in proposal.lines():
        print(f"  {line}")
    automatic = turn.fleet.turn.approval == "automatic"
    before = read_turn(turn.folder)
    if automatic and before is not None and before.outcome in ("worse", "ended"):
        print(f"{turn.classifier}: the turn before ended with {before.outcome!r}: {before.reason}")
        automatic = False
    if not proposal.reasons:
        print(f"{turn.classifier}: no reason for a turn; --approved-by NAME --reason TEXT gives one")
        return WAITS
    if not (automatic or arguments.approved_by):
        print(f"{turn.classifier}: a person approves a turn ({_why_a_person(turn)}): give --approved-by NAME")
        return WAITS
    folder = turn.folder
    keep_earlier(folder)
    record = TurnRecord(
        classifier=turn.classifier,
        opened=now(),
        approved_by=arguments.approved_by or "automatic",
        proposal=proposal,
        old_run=turn.old_run,
        run=turn.new_run(),
    )
    record.keep(folder)
    print(f"{turn.classifier}: a turn from {record.old_run} to {record.run}, approved by {record.approved_by}")
    return record


def _why_a_person(turn: "Turn") -> str:
    return "turn.approval: human" if turn.fleet.turn.approval == "human" else "the turn before promoted nothing"


def _turned(turn: "Turn", record: "TurnRecord", *, serve: bool) -> int:
    from slipway.cli.turn_build import PersonNeededError, build_stages
    from slipway.cli.turn_release import RejectedError, finish, release_stages

    if turn.old_run == record.run:  # killed between the fleet file and the record's end
        print(f"{turn.stable} serves {record.run}, bundle {turn.old_bundle.id:.12}")  # raises unless it does
        return _ended(turn, record)
    again = command("slipway turn run", turn.gateway, turn.fleet_file, turn.classifier)
    try:
        for stage in chain(build_stages(turn, record), release_stages(turn, record, serve=serve)):
            code = _run(stage)
            if code and not stage.is_judged:
                return _stopped(turn, record, stage, code)
    except PersonNeededError as said:
        print(f"\n{turn.classifier}: {said}\n  then: {again}")
        return WAITS
    except RejectedError as said:
        _end(turn, record, "worse", reason=str(said))
        print(f"\n{turn.classifier}: the candidate is worse, and the turn is over: {said}")
        return 1
    finish(turn, record)
    return _ended(turn, record)


def _ended(turn: "Turn", record: "TurnRecord") -> int:
    _end(turn, record, "promoted")
    print(f"\n{turn.classifier}: {record.run} is promoted, and the turn is over")
    return 0


def _end(turn: "Turn", record: "TurnRecord", outcome: "Outcome", *, reason: str | None = None) -> None:
    (turn.record or record).end(outcome, reason=reason).keep(turn.folder)  # a stage may have written it


def _run(stage: "Stage") -> int:
    from slipway.cli.up import step

    if stage.why is None:
        print(f"✓ {stage.title}: current", flush=True)
        return 0
    return step(f"{stage.title} ({stage.why})" if stage.why else stage.title, stage.words)


def _stopped(turn: "Turn", record: "TurnRecord", stage: "Stage", code: int) -> int:
    """The turn's exit code for a stage's exit code, with the action that a person can take."""
    names = (turn.gateway, turn.fleet_file, turn.classifier)
    if stage.title == "verdict" and code == 1 and _is_rolled_back(turn, record):
        _end(turn, record, "worse", reason="the verdict of the release")
        print(f"{turn.classifier}: the turn is over; {turn.old_run} answers")
    elif code in (1, WAITS):
        print(f"  or give the turn up: {command('slipway turn end', *names, '--reason', 'TEXT')}")
    return code


def _is_rolled_back(turn: "Turn", record: "TurnRecord") -> bool:
    """Whether the release of this run ended with a rollback; an error of the verb alone decides nothing."""
    from slipway.cli.turn_release import why_candidate
    from slipway.operations.release.record import read_record

    release = read_record(turn.stable, gateway=turn.gateway)
    if release is None or why_candidate(turn, record) or release.is_promoted or not release.actions:
        return False
    return release.actions[-1].action == "rollback"


def gate(arguments: argparse.Namespace) -> int:
    from slipway.contract.evidence.gate import FILE_NAME
    from slipway.engines.old_test_split import compare_on_old_test, open_run
    from slipway.system.targets import write_file

    old, new = (open_run(one, arguments.engine) for one in (arguments.old_run, arguments.run_folder))
    found = compare_on_old_test(old, new)
    write_file(arguments.run_folder / FILE_NAME, found.to_json())
    for line in found.lines():
        print(line)
    print_json(arguments, {**found.plain(), "verdict": found.verdict})
    return {"pass": 0, "fail": 1}.get(found.verdict, WAITS)


def status(arguments: argparse.Namespace) -> None:
    from slipway.cli.turn_status import waiting
    from slipway.operations.turn.record import read_turn

    turn = _open(arguments)
    record = read_turn(turn.folder)
    if record is None:
        print(f"{turn.classifier}: no turn yet; {turn.old_run} is active")
    else:
        state = record.outcome or "open"
        print(f"{turn.classifier}: {record.old_run} → {record.run}: {state}, opened {record.opened}")
        print(f"  approved by {record.approved_by}")
        for one in record.proposal.reasons:
            print(f"  {one.trigger}: {one.said}")
    waits = waiting(turn, record) if record is not None and record.outcome is None else None
    for line in waits.lines() if waits else ():
        print(f"  {line}")
    facts = {"active": turn.old_run, "record": record.plain() if record else None}
    print_json(arguments, {**facts, "waiting": asdict(waits) if waits else None})


def end(arguments: argparse.Namespace) -> None:
    from slipway.operations.release.lock import only_operator
    from slipway.operations.turn.record import LOCK

    turn = _open(arguments)
    with only_operator(turn.settings.folder, f"end of the turn of {turn.classifier}", file=LOCK):
        record = turn.record
        if record is None:
            names = (turn.gateway, turn.fleet_file, turn.classifier)
            run = command("slipway turn run", *names)
            raise SpecError(f"{turn.classifier}: no turn is open, so none can end; begin one with {run}")
        record = record.end("ended", reason=f"{getpass.getuser()}: {arguments.reason}")
        record.keep(turn.folder)
    print(f"{turn.classifier}: the turn to {record.run} is over; its run stays there")
    print(f"  a candidate that has requests is taken back by: {command('slipway release rollback', turn.gateway)}")
    print_json(arguments, record.plain())


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    known = {
        "propose": (propose, "look for reasons, and write them down with their evidence"),
        "run": (run, "begin a turn, or go on with the open one"),
        "status": (status, "show the newest turn, and what it waits for"),
        "end": (end, "give the open turn up"),
        "gate": (gate, "compare a run with the one before on the old test split"),
    }
    made = add_actions(parser, "turn", known)
    for name in known.keys() - {"gate"}:
        made[name].add_argument(
            "gateway", type=Path, metavar="FILE", help="the gateway's settings, with observe: and candidate:"
        )
        made[name].add_argument("fleet", type=Path, help="the fleet file of the stable repository")
        made[name].add_argument("classifier", help="the classifier's name in it")
    _run_options(made["run"])
    made["end"].add_argument("--reason", metavar="TEXT", required=True, help="reason, for the record")
    made["gate"].add_argument("old_run", type=Path, metavar="OLD", help="the former run")
    made["gate"].add_argument("run_folder", type=Path, metavar="NEW", help="the newly trained run")
    made["gate"].add_argument("--engine", metavar="NAME", help="engine of both runs; default: the one in choice.json")
    return parser


def _run_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--approved-by", metavar="NAME", help="the person who approves a new turn")
    one.add_argument("--reason", metavar="TEXT", help="reason of this person for the turn; needed if no trigger fired")
    one.add_argument(
        "--accept",
        metavar="TEXT",
        help="reason to continue although the old test split is too small for a proof; for the next engine only",
    )
    one.add_argument("--serve", action="store_true", help="start the candidate's server if it does not run")
