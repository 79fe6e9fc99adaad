"""The last stages of a turn: the candidate beside stable, comparison, canary, and the end."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.cli.turn_build import PersonNeededError, Stage
from slipway.cli.turn_fleet import make_active, name_candidate
from slipway.cli.turn_run import Turn
from slipway.contract import Manifest, ServingError, SpecError
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.journal.store import Store
from slipway.operations.release.comparing import images_there
from slipway.operations.release.compatibility import answering
from slipway.operations.release.counts import Disagreements
from slipway.operations.release.disagreements import Tally, pairs_of, trained_on
from slipway.operations.release.judge import ReleaseVerdict, images_needed
from slipway.operations.release.record import read_record
from slipway.operations.release.trial import Trial
from slipway.operations.turn.record import TurnRecord
from slipway.serving.ports import HOST
from slipway.system.targets import write_file
from slipway.system.text import command

START_S = 120.0
LOOK_S = 0.5
IMAGES = 10_000
"""Latest images of the journal that are compared: equal versions need 5,000 to 10,000, since few of them differ."""


class RejectedError(Exception):
    """The candidate is worse; the turn is over."""


def release_stages(turn: Turn, record: TurnRecord, *, serve: bool) -> Iterator[Stage]:
    """Yield the stages from the fleet file to the promotion.

    Raises:
        PersonNeededError: what comes next is a person's.
        RejectedError: the candidate was shown to be worse.
        SpecError, ServingError: as the verbs.
    """
    if name_candidate(turn.fleet_file, turn.classifier, record.run):
        print(f"{turn.fleet_file}: release.candidate names {record.run} for {turn.classifier}")
    words = ("release", "candidate", str(turn.gateway), str(turn.fleet_file))
    yield Stage("candidate", why_candidate(turn, record), words)
    trial = Trial.open(turn.gateway)
    if trial.record.is_promoted:
        return
    require_not_rolled_back(trial, turn)
    ports = candidate_ports(turn)
    yield from server_stages(trial, ports, serve=serve, run=turn.below(record.run))
    if not trial.traffic.weight_percent:
        yield Stage("comparison", "", ("release", "compare", str(turn.gateway), "--images", str(IMAGES)))
        require_labels(trial.again(), turn)
        yield Stage("weight", "", ("release", "weight", str(turn.gateway)))
    yield Stage("verdict", "", ("release", "judge", str(turn.gateway), "--watch"))
    if not trial.again().record.is_promoted:  # approval: automatic has promoted it
        raise PersonNeededError(
            "the candidate is fine; a person promotes it: "
            + command("slipway release promote", turn.gateway, "--approved-by", "NAME")
        )


def why_candidate(turn: Turn, record: TurnRecord) -> str | None:
    """Return the reason to write the candidate; None if the open release is of this run."""
    release = read_record(turn.stable, gateway=turn.gateway)
    bundle = Manifest.read(turn.below(record.run) / "bundle" / MANIFEST).bundle
    if release is None or release.candidate.bundles != {turn.classifier: bundle}:
        return "not written yet"
    return None


def finish(turn: Turn, record: TurnRecord) -> None:
    """Make the run active in the fleet file, after a promotion.

    Raises:
        SpecError: the file cannot be changed safely.
    """
    if make_active(turn.fleet_file, turn.path, record.run):
        print(f"{turn.fleet_file}: {record.run} is active for {turn.classifier}")


def require_not_rolled_back(trial: Trial, turn: Turn) -> None:
    """Raises PersonNeededError: the candidate was rolled back, and a person says whether it gets requests again."""
    last = trial.record.actions[-1] if trial.record.actions else None
    if last is not None and last.action == "rollback":
        reason = f": {last.reason}" if last.reason else ""
        raise PersonNeededError(
            f"{last.by} rolled the candidate back at {last.time}{reason}. Give it requests again: "
            f"{command('slipway release weight', turn.gateway)}, or give the turn up: "
            + command("slipway turn end", turn.gateway, turn.fleet_file, turn.classifier, "--reason", "TEXT")
        )


def candidate_ports(turn: Turn) -> ServerPorts:
    """Return the ports of the candidate's server.

    Raises:
        SpecError: the gateway's settings have none.
    """
    if turn.settings.candidate is None:
        raise SpecError(
            f"{turn.gateway}: candidate: not given; write the ports of the candidate's server, such as "
            "{grpc: 8101, http: 8100, status: 8103}, and slipway reload"
        )
    return turn.settings.candidate


def server_stages(trial: Trial, ports: ServerPorts, *, serve: bool, run: Path) -> Iterator[Stage]:
    """The candidate's server: it answers, is reloaded, is started by `serve`, or a person starts it.

    Raises:
        PersonNeededError: it does not run, and a person starts it.
        ServingError: it was started, and ended or did not answer in time; its log says why.
    """
    bundles, repository = trial.record.candidate.bundles, trial.record.candidate.path
    if not answering(ports, bundles):
        return
    if _listens(ports.status):
        words = ("reload", "--status-port", str(ports.status))
        yield Stage("candidate's server", "it serves another repository", words)
    elif serve:
        process = _start(repository, ports, run=run)
        deadline = time.monotonic() + START_S
        while answering(ports, bundles):
            if os.waitpid(process, os.WNOHANG)[0]:
                raise ServingError(f"the candidate's server ended; {run / 'candidate.log'} says why")
            if time.monotonic() > deadline:
                raise ServingError(f"the candidate's server does not answer yet; {run / 'candidate.log'} says why")
            time.sleep(LOOK_S)
    else:
        serving = command("slipway serve", repository, *ports.options)
        raise PersonNeededError(f"start the candidate's server, or give --serve: {serving}")


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((HOST, port)) == 0


def _start(repository: str, ports: ServerPorts, *, run: Path) -> int:
    """Start the candidate's server, which outlives this command, as a person's would; returns its process id."""
    log = run / "candidate.log"
    words = ("serve", repository, *ports.options)
    print(f"\n── candidate's server, in the background: {command('slipway', *words)}", flush=True)
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "slipway", *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
    )
    write_file(run / "candidate.pid", f"{process}\n")
    print(f"  process {process}, until you end it (kill {process}); log: {log}", flush=True)
    return process


def require_labels(trial: Trial, turn: Turn) -> None:
    """Continue only if the disagreements are decided: before that, no user gets an answer of the candidate.

    The release is also over if the counts show that it is worse; `judged` reads no labels then.
    """
    judged = trial.judged()
    if judged.judgement.verdict is ReleaseVerdict.WORSE:
        raise RejectedError(judged.judgement.reason)
    series = [one for one in judged.judgement.series if one.series == "disagreements"]
    if not series:
        raise PersonNeededError(
            f"nothing was compared: {judged.unread}; decide yourself: {command('slipway release weight', turn.gateway)}"
        )
    reasons = "; ".join(one.reason for one in series)
    if all(one.verdict is ReleaseVerdict.FINE for one in series):
        return
    found = judged.tallies.get(turn.classifier)
    if found is not None and found.open:
        names = (turn.gateway, "--classifier", turn.classifier)
        push, pull = (command(verb, *names) for verb in ("slipway labels push", "slipway labels pull"))
        given = f"{found.asked - found.open:,} of {found.asked:,} labels given"
        raise PersonNeededError(f"people label what the versions differ in ({given}): {push}, later {pull}; {reasons}")
    raise PersonNeededError(
        f"the labels do not decide, and no question is open; {_more_images(trial, turn, found)}; or decide yourself: "
        f"{command('slipway release weight', turn.gateway)}; {reasons}"
    )


def _more_images(trial: Trial, turn: Turn, found: Tally | None) -> str:
    """Return a phrase on the images that the journal has, and on how many more to collect."""
    told = found.told(turn.classifier) if found is not None else Disagreements(0, 0, 0, 0)
    needed = images_needed(told, trial.record.settings.judge)
    there, left = images_in_journal(trial, turn)
    collect = f"let {command('slipway journal run', turn.gateway)} collect {max(needed - left, 1):,} more"
    if not left:
        return f"all {there:,} images of {turn.classifier} that the journal has are compared: {collect}"
    compare = command("slipway release compare", turn.gateway, "--images", str(there))
    further = f", and {collect}" if needed > left else ""
    has = f"the journal has {there:,} images of {turn.classifier}"
    return f"{has}, {left:,} of them not compared yet: {compare}{further}"


def images_in_journal(trial: Trial, turn: Turn) -> tuple[int, int]:
    """Return the number of images of the journal that may be compared, and of those that are not compared yet.

    Raises:
        SpecError: the candidate's training images are unknown.
        StorageError: the journal cannot be read.
    """
    (pair,) = (one for one in pairs_of(trial.record) if one.classifier == turn.classifier)
    with Store.of(turn.settings, make=False) as store:
        return images_there(store, pair, without=trained_on(trial.record, turn.classifier) or ())
