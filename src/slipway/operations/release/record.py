"""The record of a release, `<repository>.release.json` beside the stable repository: its candidate and its actions."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import PrivateAttr

from slipway.contract import Lane, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.release import FleetRelease
from slipway.contract.typed_file import Contract
from slipway.operations.release.judge import ReleaseJudgement
from slipway.system.files import sha256_file
from slipway.system.targets import write_file
from slipway.system.text import command

Deed: TypeAlias = Literal["candidate", "weight", "mirror", "promote", "rollback"]


class RepositoryFacts(Contract):
    """A repository at the time of the record."""

    path: str
    manifest_sha256: str
    bundles: dict[str, str]
    """Ids of the bundles of the classifiers that are tried."""

    @classmethod
    def of(cls, repository: Path, classifiers: tuple[str, ...]) -> Self:
        """Raises SpecError or ManifestError if it is not a repository."""
        if not (repository / LANE).is_file():
            raise SpecError(f"{repository}: not a repository, it has no {LANE}; slipway assemble writes one")
        bundles = Lane.read(repository / LANE).classifiers
        return cls(
            path=str(repository),
            manifest_sha256=sha256_file(repository / MANIFEST),
            bundles={name: bundles[name] for name in classifiers if name in bundles},
        )


class Action(Contract):
    """Something that was done to the release."""

    time: str
    action: Deed
    by: str
    """The person who approved it or called the command, or `judge`."""
    weight_percent: int
    """Weight that was in force afterwards."""
    mirror_percent: int
    reason: str | None = None
    stable: RepositoryFacts | None = None
    """Repository that the stable server serves afterwards, if it changed."""
    evidence: ReleaseJudgement | None = None
    """The verdict at that time."""


class ReleaseRecord(Contract):
    """A candidate beside the stable repository."""

    fleet: str
    opened: str
    """Time at which the candidate was written; its evidence begins then."""
    classifiers: tuple[str, ...]
    """Classifiers whose runs are tried."""
    stable: RepositoryFacts
    """The stable repository before the release."""
    candidate: RepositoryFacts
    settings: FleetRelease
    """`release` of the fleet file at that time. Changing it later needs `slipway release candidate` again, so that the
    rules of the judge are fixed before its evidence."""
    actions: tuple[Action, ...] = ()
    _gateway: Path = PrivateAttr()

    @property
    def gateway(self) -> Path:
        """The gateway's settings, for the commands that a person is told; only `read_record` knows them."""
        return self._gateway

    @property
    def readings(self) -> str:
        """Name of the file of readings."""
        when = "".join(character for character in self.opened if character.isdigit())[:14]
        return f"readings-{self.candidate.manifest_sha256:.12}-{when}.jsonl"

    @property
    def models(self) -> frozenset[str]:
        """The models that the trial counts: those which a tried classifier answers, alone or with others."""
        repository = Path(self.candidate.path)
        if not (repository / LANE).is_file():
            raise SpecError(
                f"{repository}: the candidate's repository is gone, as after a restore; if it has requests, first take "
                f"them away: {command('slipway release rollback', self.gateway)}; then write it and begin its trial "
                f"again: {command('slipway release candidate', self.gateway, self.fleet)}"
            )
        lane, tried = Lane.read(repository / LANE), set(self.classifiers)
        return frozenset(name for name, answering in lane.ensembles.items() if tried & set(answering))

    @property
    def is_promoted(self) -> bool:
        """Whether the folder of the stable repository holds the candidate."""
        return sha256_file(Path(self.stable.path) / MANIFEST) == self.candidate.manifest_sha256

    def with_action(self, action: Action) -> Self:
        return self.model_copy(update={"actions": (*self.actions, action)})

    def keep(self) -> None:
        """Raises StorageError: the file cannot be written."""
        write_file(record_path(Path(self.stable.path)), self.to_json())


def labels_of(repository: str | Path, classifier: str) -> tuple[str, ...]:
    """The classes of a classifier in a repository, in the order of their ids."""
    text = Path(repository, f"{classifier}_full", "labels.txt").read_text(encoding="utf-8")
    return tuple(text.removesuffix("\n").split("\n"))


def record_path(repository: Path) -> Path:
    return repository.with_name(f"{repository.name}.release.json")


def read_record(repository: Path, *, gateway: Path) -> ReleaseRecord | None:
    """The record beside `repository`; None if no candidate was written for it.

    Args:
        gateway: the gateway's settings, for the commands in the message.

    Raises:
        SpecError: the file is damaged.
    """
    path = record_path(repository)
    if not path.exists():
        return None
    try:
        record = ReleaseRecord.read(path)
    except SpecError as error:
        first = command("slipway release rollback", gateway)
        raise SpecError(
            f"{error}; if the candidate has requests, first take them away: {first}; then move {path} away, and begin "
            f"the trial again: {command('slipway release candidate', gateway, 'FLEET')}"
        ) from None
    record._gateway = gateway
    return record


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
