"""Promotes a candidate, and rolls it back: before a promotion by weight 0, after it by the former repository."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import Manifest, ServingError, SlipwayError, SpecError
from slipway.contract.typed_file import Contract
from slipway.oci.cache import images_folder
from slipway.operations.gateway.routes import Traffic, has_requests, write_routes
from slipway.operations.gateway.settings import GatewaySettings, read_settings
from slipway.operations.release.apply_weights import put_in_force
from slipway.operations.release.compatibility import answering, check_candidate
from slipway.operations.release.judge import ReleaseJudgement
from slipway.operations.release.lock import only_operator
from slipway.operations.release.record import RepositoryFacts
from slipway.operations.release.trial import Trial
from slipway.serving.reload_request import request_reload
from slipway.system.files import complete_folder, files_below
from slipway.system.text import command

RELOAD_S = 240.0


class Switched(Contract):
    """Result of a promotion or rollback."""

    weight_zero_s: float | None
    """Seconds until the gateway sent all requests to stable; None if it does not answer."""
    seconds: float
    """Seconds of the whole."""
    reloaded: str | None
    """Change of the stable server; None if it still serves the same repository."""


@dataclass(frozen=True)
class Approval:
    """The person who promotes a candidate, and the reason."""

    by: str
    reason: str | None
    evidence: ReleaseJudgement


def former_repository(stable: Path) -> Path:
    """The folder beside `stable` in which a promotion keeps what was served before."""
    return stable.with_name(f"{stable.name}.former")


def promote(trial: Trial, approval: Approval) -> Switched:
    """Let the stable server serve the candidate's repository without refusing a request, then give it all requests.

    The former repository is kept beside. If the reload fails, it is put back, and the stable server reloads it.

    Raises:
        SpecError: another operator is at work, one of the repositories is no longer that of the record, or the stable
            one is unpacked from an image.
        ServingError: the stable server cannot serve the candidate; the message says whether the former repository is
            served again. Or the gateway does not answer.
    """
    record, started = trial.record, time.monotonic()
    stable, candidate = Path(record.stable.path), Path(record.candidate.path)
    check_own_folder(stable)
    with only_operator(trial.settings.folder, "promote"):
        _check_as_recorded(trial)
        if not record.is_promoted:
            check_candidate(stable, candidate, tried=record.classifiers)
            replace_repository(former_repository(stable), stable)
            replace_repository(stable, candidate)
        try:
            reloaded = _reload(trial, record.candidate)
        except ServingError as error:
            raise ServingError(f"not promoted, and {_undone(trial)}; the reason: {error}") from None
        at_zero, unconfirmed = _all_to_stable(trial.settings)
        trial.note(
            "promote",
            by=approval.by,
            traffic=Traffic(),
            reason=approval.reason,
            stable=RepositoryFacts.of(stable, record.classifiers),
            evidence=approval.evidence,
        )
    if unconfirmed is not None:
        raise ServingError(f"promoted; {unconfirmed}")
    return Switched(weight_zero_s=at_zero, seconds=time.monotonic() - started, reloaded=reloaded)


def check_own_folder(stable: Path) -> None:
    """Raises SpecError if a repository is the folder in which a server keeps an image, by the image's digest."""
    if stable.resolve().is_relative_to(images_folder().resolve()):
        raise SpecError(
            f"{stable}: unpacked from an image, and a promotion would replace it; unpack the image to a folder of its "
            "own (slipway image unpack), and serve that"
        )


def roll_back(trial: Trial, *, by: str, reason: str | None = None) -> Switched:
    """Give all requests to stable; after a promotion, put the former repository back and let the server serve it.

    Raises:
        SpecError: another operator is at work, or the former repository is not that of the record.
        ServingError: weight 0 is written, but the gateway does not answer; or the stable server does not reload. The
            record has the rollback all the same.
    """
    with only_operator(trial.settings.folder, "rollback"):
        return _rolled_back(trial, by=by, reason=reason)


def roll_back_without_record(source: Path, error: SpecError) -> None:
    """Give all requests to stable where `error` says why the release cannot be read, and raise what is left to do.

    Raises:
        SpecError: always; `error`, and whether weight 0 is in force.
        ServingError: weight 0 is written, but the gateway does not answer.
    """
    settings = read_settings(source)
    with only_operator(settings.folder, "rollback"):
        if not has_requests(settings):
            raise error
        _, unconfirmed = _all_to_stable(settings)
    if unconfirmed is not None:
        raise ServingError(f"{unconfirmed}; {error}")
    raise SpecError(f"weight 0 is in force, and nothing else was undone: {error}")


def roll_back_worse(trial: Trial, evidence: ReleaseJudgement) -> Switched | None:
    """Roll back by a verdict, once no other operator is at work.

    None if by then the candidate has no requests, a person has promoted it, or another release is open.

    Raises:
        ServingError: as in `roll_back`.
        StorageError: the weights cannot be written.
    """
    with only_operator(trial.settings.folder, "rollback", wait=True):
        if not (has_requests(trial.settings) and trial.is_open) or trial.record.is_promoted:
            return None
        return _rolled_back(trial, by="judge", evidence=evidence)


def _rolled_back(
    trial: Trial, *, by: str, reason: str | None = None, evidence: ReleaseJudgement | None = None
) -> Switched:
    record, started = trial.record, time.monotonic()
    at_zero, unconfirmed = _all_to_stable(trial.settings)
    try:
        reloaded, unserved = _serve_former(trial)
    except SlipwayError as error:
        raise type(error)(f"{unconfirmed or 'weight 0 is in force'}, but nothing else was undone: {error}") from None
    now_stable = RepositoryFacts.of(Path(record.stable.path), record.classifiers) if reloaded is not None else None
    trial.note("rollback", by=by, traffic=Traffic(), reason=reason, stable=now_stable, evidence=evidence)
    if problems := [problem for problem in (unconfirmed, unserved) if problem is not None]:
        raise ServingError("; ".join(problems))
    return Switched(weight_zero_s=at_zero, seconds=time.monotonic() - started, reloaded=reloaded)


def _all_to_stable(settings: GatewaySettings) -> tuple[float | None, str | None]:
    """Set the weight to 0, whether the gateway answers or not. Returns how many seconds that took, or what is wrong."""
    try:
        return put_in_force(settings, Traffic()), None
    except ServingError as error:
        write_routes(settings, Traffic())
        return None, f"weight 0 is written, and in force once the gateway answers again: {error}"


def _undone(trial: Trial) -> str:
    """Undo a promotion whose reload failed; returns what the stable folder holds now, and whether it is served.

    The server may serve the candidate by now: its reload may have taken longer than we waited.
    """
    stable, again = Path(trial.record.stable.path), command("slipway release rollback", trial.source)
    try:
        _put_former_back(trial)
    except SlipwayError as error:  # another repository, a damaged one, a full disk
        return f"{stable} still holds the candidate, since the former repository cannot be put back: {error}"
    try:
        _reload(trial, trial.record.stable)
    except ServingError as error:
        return f"the former repository is back in {stable}, but its server may not serve it ({error}); {again}"
    return f"the former repository is back in {stable} and served"


def _serve_former(trial: Trial) -> tuple[str | None, str | None]:
    """Let the stable server serve the repository from before the promotion, unless it does so already.

    Without a promotion it may still serve the candidate, after a promotion or a rollback that was killed or failed.

    Returns:
        What the server changed, None if it did not reload; and what is wrong.
    """
    record, stable = trial.record, Path(trial.record.stable.path)
    if record.is_promoted:
        _put_former_back(trial)
    elif _is_served(trial):
        return None, None
    elif not _is(stable, record.stable):
        return None, f"{stable} was written again since, and its server does not serve it; {_reload_by_hand(trial)}"
    try:
        return _reload(trial, record.stable), None
    except ServingError as error:
        return None, (
            f"weight 0 is written and the former repository is back in {stable}, but its server does not serve it yet: "
            f"{error}; {_reload_by_hand(trial)}, or start it again"
        )


def _is_served(trial: Trial) -> bool:
    """Whether the stable server answers with the bundles of its folder; False if the candidate has the same bundles, so
    that the answer does not tell."""
    record, stable = trial.record, Path(trial.record.stable.path)
    present = RepositoryFacts.of(stable, record.classifiers)
    tells = present.bundles != record.candidate.bundles or not _is(stable, record.stable)
    return tells and not answering(trial.settings.stable, present.bundles)


def _reload_by_hand(trial: Trial) -> str:
    return command("slipway reload --status-port", str(trial.settings.stable.status))


def _put_former_back(trial: Trial) -> None:
    """Raises SpecError if the former repository is not that of the record."""
    stable = Path(trial.record.stable.path)
    former = former_repository(stable)
    _require(former, trial.record.stable, "assemble the former fleet file, and slipway reload")
    replace_repository(stable, former)


def replace_repository(target: Path, source: Path) -> None:
    """Make `target` a repository with the files of `source`, in one step. Files are linked where that is possible.

    Raises:
        SpecError: `target` is something else, or another process is writing it.
        ManifestError: `source` is damaged.
        StorageError: the disk is full, or the like.
    """
    Manifest.open(source, kind="repository")
    with complete_folder(target, kind="repository") as staging:
        for name, path in files_below(source).items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, staging / name)
            except OSError:  # another file system, or too many links
                shutil.copy2(path, staging / name)


def _reload(trial: Trial, wanted: RepositoryFacts) -> str:
    """Reload the stable server; raises ServingError unless it then answers with the bundles of `wanted`."""
    reloaded = request_reload(trial.settings.stable.status, timeout_s=RELOAD_S)
    if problems := answering(trial.settings.stable, wanted.bundles):
        said = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise ServingError(f"after its reload the stable server is not right: {said}")
    return reloaded


def _check_as_recorded(trial: Trial) -> None:
    record = trial.record
    again = command("slipway release candidate", trial.source, "FLEET")
    remedy = f"write the candidate again ({again}), and judge that"
    _require(Path(record.candidate.path), record.candidate, remedy)
    if not record.is_promoted:
        _require(Path(record.stable.path), record.stable, remedy)
    trial.require_open()


def _require(repository: Path, wanted: RepositoryFacts, remedy: str) -> None:
    if not repository.is_dir():
        raise SpecError(f"{repository}: missing; {remedy}")
    if not _is(repository, wanted):
        raise SpecError(f"{repository}: not the repository of the record, it was written again since; {remedy}")


def _is(repository: Path, wanted: RepositoryFacts) -> bool:
    """Whether the folder `repository` holds what `wanted` describes."""
    return RepositoryFacts.of(repository, tuple(wanted.bundles)).manifest_sha256 == wanted.manifest_sha256
