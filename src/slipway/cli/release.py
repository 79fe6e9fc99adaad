"""Try a candidate beside the stable server: give it a share of the requests, judge it, promote it or roll it back."""

import argparse
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import ServingError, SlipwayError, SpecError, StorageError
from slipway.system.arguments import Parser, count, percent, rate
from slipway.system.json_line import add_actions, print_json, verb_parser
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.operations.release.promotion import Switched
    from slipway.operations.release.trial import Judged, Trial

EPILOG = """example:
  slipway release candidate gateway.yaml fleet.yaml
  slipway serve model_repository/cpu-candidate \\
    --grpc-port 8101 --http-port 8100 --metrics-port 8102 --status-port 8103 &
  slipway release compare gateway.yaml
  slipway release weight gateway.yaml 10
  slipway release judge gateway.yaml --watch
  slipway release promote gateway.yaml --approved-by "A. Lee"
  slipway release rollback gateway.yaml
  slipway release status gateway.yaml

fleet.yaml:
  release:
    candidate: {digits: runs/digits-2}   # the run that is to answer, by classifier
    weight: 10                           # percentage of the requests, unless the command says another
    mirror: 0                            # percentage of the requests that are copied
    approval: human                      # or automatic: promote at the verdict fine
    rollback: automatic                  # or human: only say that it is worse
    judge: {error_ratio: 1.25, acceptable_ratio: 2, slow_share: 0.01, alpha: 0.01, bake_minutes: 60, max_hours: 24}

gateway.yaml names the stable repository (repository:) and the ports of both servers (stable:, candidate:).

compare asks the candidate for the latest images of the journal that stable answered, directly and at a bounded rate. It
may be ended at any time and called again. Where the answers differ it asks people (slipway labels), 50 at a time. If
the gateway keeps a journal, a promotion needs these labels, or hardly any difference.

judge exits with 0 for fine, 1 for worse, and 2 for too few to tell. After an error it also exits with 1, and prints a
sentence instead of a verdict. The other actions exit with 0 on success and with 1 on an error.

promote lets the stable server serve the candidate's repository without refusing a request, and keeps the former one
beside. rollback sets the weight to 0; after a promotion it also puts the former repository back. docs/release.md."""
POLL_S = 5.0
EXIT = {"fine": 0, "worse": 1, "too_few": 2}


def main(arguments: argparse.Namespace) -> int | None:
    code: int | None = arguments.run(arguments)
    return code


def candidate(arguments: argparse.Namespace) -> None:
    from slipway.cli.release_candidate import write_candidate  # not at the top: --help needs no library
    from slipway.operations.gateway.settings import read_settings

    record = write_candidate(arguments.gateway, arguments.fleet, arguments.out)
    print(f"{record.candidate.path}: the fleet with the candidate of {', '.join(record.classifiers)}")
    for name in record.classifiers:
        before, after = (facts.bundles[name] for facts in (record.stable, record.candidate))
        print(f"  {name}: bundle {before:.12} is stable, {after:.12} is the candidate")
    ports = read_settings(arguments.gateway).candidate
    serving = command("slipway serve", record.candidate.path, *(ports.options if ports else ()))
    print(f"  next: {serving}" + ("" if ports else f", on the ports of candidate:, which {arguments.gateway} lacks"))
    print(f"  then: {command('slipway release weight', arguments.gateway)}")
    print_json(arguments, record.plain())


def status(arguments: argparse.Namespace) -> None:
    from slipway.cli.release_status import show

    show(_open(arguments), arguments)


def compare(arguments: argparse.Namespace) -> None:
    from slipway.cli.release_compare import run

    run(_open(arguments), arguments)


def weight(arguments: argparse.Namespace) -> None:
    trial = _open(arguments)
    percent = trial.record.settings.weight if arguments.percent is None else arguments.percent
    sticky = {} if arguments.sticky_header is None else {"sticky_header": arguments.sticky_header or None}
    _divide(trial, arguments, weight_percent=percent, **sticky)


def mirror(arguments: argparse.Namespace) -> None:
    trial = _open(arguments)
    percent = trial.record.settings.mirror if arguments.percent is None else arguments.percent
    _divide(trial, arguments, mirror_percent=percent)


def _divide(trial: "Trial", arguments: argparse.Namespace, **changes: int | str | None) -> None:
    now, seconds = trial.divide(changes, action=arguments.action, by=getpass.getuser())
    sticky = f", sticky by {now.sticky_header}" if now.sticky_header else ""
    print(
        f"in force after {1000 * seconds:.0f} ms: weight {now.weight_percent} %, mirror {now.mirror_percent} %{sticky}"
    )
    print_json(arguments, {**now.plain(), "seconds": seconds})


def judge(arguments: argparse.Namespace) -> int:
    from slipway.operations.gateway.settings import default_budgets  # not at the top: --help needs no library

    trial = _open(arguments)
    budgets = default_budgets(trial.settings, trial.record.models)
    judged = _watched(trial, arguments) if arguments.watch else trial.look()
    _say(judged)
    if budgets:
        print(f"  {budgets}")
    acted = _act(trial, judged, arguments)
    verdict = judged.judgement.verdict
    facts = {"blocks": judged.blocks, "restarts": judged.restarts, "out_of_order": judged.out_of_order}
    print_json(arguments, {**judged.judgement.plain(), **facts, "damaged": judged.damaged, "acted": acted})
    return EXIT[verdict.value]


def _watched(trial: "Trial", arguments: argparse.Namespace) -> "Judged":
    """Look until the watch is over.

    Raises:
        SpecError: another release is open by now; or the first look finds what no waiting mends, such as settings that
            the running gateway does not have.
    """
    end = "; end its trial: " + command("slipway release rollback", arguments.gateway)
    judged = _look(trial, waits_for=(ServingError, StorageError, OSError))
    while judged is None or not _is_over(trial, judged):
        if judged is not None:
            print(f"  {judged.judgement.reason}{end if judged.judgement.expired else ''}", flush=True)
        time.sleep(POLL_S)
        judged = _look(trial, waits_for=(SlipwayError, OSError)) or judged
    return judged


def _look(trial: "Trial", *, waits_for: tuple[type[Exception], ...]) -> "Judged | None":
    """A look of a watch, which goes on without one; raises SpecError if another release is open by now."""
    try:
        if trial.is_open:
            return trial.look()
    except waits_for as error:
        print(f"  not read: {error}", flush=True)
        print("  the candidate is not judged until that is mended; the watch tries again", flush=True)
        return None
    trial.require_open()
    return None


def _is_over(trial: "Trial", judged: "Judged") -> bool:
    """Whether a watch ends. After `max_hours` it looks on for `worse` while a candidate that it may roll back has
    requests."""
    from slipway.operations.gateway.routes import has_requests

    if judged.judgement.verdict.value != "too_few":
        return True
    guards = trial.record.settings.rollback == "automatic" and has_requests(trial.settings)
    return judged.judgement.expired and not guards


def _say(judged: "Judged") -> None:
    print(f"{judged.judgement.verdict.value}: {judged.judgement.reason}")
    for remark in judged.remarks:
        print(f"  {remark}")


def _act(trial: "Trial", judged: "Judged", arguments: argparse.Namespace) -> str | None:
    """Roll back or promote where the fleet file allows it; otherwise propose it. Returns what was done."""
    settings, verdict = trial.record.settings, judged.judgement.verdict.value
    if judged.judgement.expired:
        print(f"  proposed: {command('slipway release rollback', arguments.gateway)}")
    if trial.record.is_promoted or verdict == "too_few":
        return None
    if verdict == "worse":
        if settings.rollback == "human":
            print(f"  proposed: {command('slipway release rollback', arguments.gateway)}")
            return None
        return _roll_back_worse(trial, judged, again=arguments.watch)
    if settings.approval == "human" or judged.judgement.hours >= settings.judge.max_hours:
        print(f"  proposed: {command('slipway release promote', arguments.gateway, '--approved-by', 'NAME')}")
        return None
    _promote(trial, judged, by="judge", reason=None)
    return "promote"


def _roll_back_worse(trial: "Trial", judged: "Judged", *, again: bool) -> str | None:
    """Roll back by the verdict; `again` tries it until the weights can be written."""
    from slipway.operations.release.promotion import roll_back_worse

    while True:
        try:
            switched = roll_back_worse(trial, judged.judgement)
        except (StorageError, OSError) as error:
            if not again:
                raise
            print(f"  not rolled back yet: {error}", flush=True)
            time.sleep(POLL_S)
            continue
        if switched is None:
            print("  nothing to roll back: the candidate has no requests, is promoted, or another one was written")
            return None
        _say_rolled_back(switched)
        return "rollback"


def promote(arguments: argparse.Namespace) -> None:
    trial = _open(arguments)
    if arguments.without_verdict and not arguments.reason:
        raise SpecError("--without-verdict needs --reason TEXT, which the record keeps")
    if trial.record.settings.approval == "human" and not arguments.approved_by:
        raise SpecError("a person approves a promotion (release.approval: human): give --approved-by NAME")
    judged = trial.look()
    if judged.judgement.verdict.value != "fine" and not arguments.without_verdict:
        raise SpecError(
            f"not promoted: the verdict is {judged.judgement.verdict.value}: {judged.judgement.reason}; wait for fine, "
            "or give --without-verdict --reason TEXT"
        )
    switched = _promote(trial, judged, by=arguments.approved_by or getpass.getuser(), reason=arguments.reason)
    print_json(arguments, {**switched.plain(), "verdict": judged.judgement.verdict.value})


def _promote(trial: "Trial", judged: "Judged", *, by: str, reason: str | None) -> "Switched":
    from slipway.operations.release.promotion import Approval, former_repository, promote

    switched = promote(trial, Approval(by=by, reason=reason, evidence=judged.judgement))
    stable = Path(trial.record.stable.path)
    runs = ", ".join(f"{name}: {run}" for name, run in trial.record.settings.candidate.items())
    print(f"promoted in {switched.seconds:.1f} s, approved by {by}: {switched.reloaded}")
    print(f"  the former repository is kept in {former_repository(stable)}")
    print(f"  next: in {trial.record.fleet}, make these runs active ({runs}), and remove release:")
    return switched


def rollback(arguments: argparse.Namespace) -> None:
    from slipway.operations.release.promotion import roll_back, roll_back_without_record

    try:
        trial = _open(arguments)
    except SpecError as error:
        roll_back_without_record(arguments.gateway, error)
        raise
    switched = roll_back(trial, by=getpass.getuser(), reason=arguments.reason)
    _say_rolled_back(switched)
    print_json(arguments, switched.plain())


def _say_rolled_back(switched: "Switched") -> None:
    at_zero = 0.0 if switched.weight_zero_s is None else switched.weight_zero_s
    print(f"rolled back: weight 0 % is in force after {1000 * at_zero:.0f} ms")
    if switched.reloaded is not None:
        print(f"  the former repository is served again, after {switched.seconds:.1f} s: {switched.reloaded}")


def _open(arguments: argparse.Namespace) -> "Trial":
    from slipway.operations.release.trial import Trial  # not at the top: --help needs no library

    return Trial.open(arguments.gateway)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    known = {
        "candidate": (candidate, "write the candidate's repository, and open the release"),
        "status": (status, "show weights, what answers, the counts of both arms, and the verdict so far"),
        "compare": (compare, "ask the candidate for images of the journal, and people where the answers differ"),
        "weight": (weight, "set the percentage of requests that the candidate answers"),
        "mirror": (mirror, "set the percentage of requests that are copied to the candidate"),
        "judge": (judge, "read the counters once, and judge the candidate"),
        "promote": (promote, "let the stable server serve the candidate's repository"),
        "rollback": (rollback, "set the weight to 0, and undo a promotion"),
    }
    shared = Parser(add_help=False)
    shared.add_argument("gateway", type=Path, metavar="FILE", help="the gateway's settings, gateway.yaml")
    made = add_actions(parser, "release", known, shared)
    one = made["candidate"]
    one.add_argument("fleet", type=Path, help="fleet file whose release: names the candidate")
    one.add_argument("--out", type=Path, help="repository to write; default: the stable one's name, with -candidate")
    one = made["compare"]
    one.add_argument("--images", type=count, default=1000, help="latest images of the journal")
    one.add_argument("--per-second", type=rate, default=10, help="images each second at most")
    one.add_argument("--ask", type=count, default=50, help="questions that may be open at once")
    one.add_argument(
        "--training-unknown", action="store_true", help="compare a candidate without a data set, such as an import"
    )
    for one in (made["weight"], made["mirror"]):
        one.add_argument("percent", type=percent, nargs="?", help="0 to 100; default: that of the fleet file")
    made["weight"].add_argument(
        "--sticky-header", metavar="NAME", help="header whose value decides which server; '' for none"
    )
    made["judge"].add_argument("--watch", action="store_true", help=f"read every {POLL_S:g} s until there is a verdict")
    made["promote"].add_argument("--approved-by", metavar="NAME", help="the person who approves it")
    made["promote"].add_argument(
        "--without-verdict", action="store_true", help="promote although the verdict is not fine"
    )
    for one in (made["promote"], made["rollback"]):
        one.add_argument("--reason", metavar="TEXT", help="reason, for the record")
    return parser
