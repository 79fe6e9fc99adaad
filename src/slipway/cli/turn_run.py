"""The parts of one turn: the classifier's active run, the run that the turn makes, and the files of both."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract import Bundle, Fleet, Lane, SpecError
from slipway.contract.choice import Choice
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.spec import Spec
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.trial import stable_repository
from slipway.operations.turn.record import TurnRecord, read_turn, turn_folder
from slipway.system.targets import write_file
from slipway.system.yaml_json import dump_yaml

WEIGHTS = "checkpoint/model.safetensors"
_NUMBERED = re.compile(r"(.*?)-(\d+)")


@dataclass(frozen=True)
class Turn:
    """One classifier of a fleet behind a gateway with a journal."""

    gateway: Path
    fleet_file: Path
    classifier: str
    settings: GatewaySettings
    fleet: Fleet
    stable: Path
    """Repository that answers."""
    old_run: str
    """The active run, relative to the fleet file."""
    path: tuple[str, ...]
    """Keys of the active run in the fleet file."""
    base_run: Path | None
    """Run of the base, if the classifier is a head."""

    @classmethod
    def open(cls, gateway: Path, fleet_file: Path, classifier: str) -> Self:
        """Raises SpecError: the files are wrong, do not go together, or a turn cannot be made for this classifier."""
        settings, fleet = GatewayPlan.open(gateway).settings, Fleet.read(fleet_file)
        if settings.observe is None:
            raise SpecError(f"{gateway}: observe: not given, so there is no journal to learn from; add observe: {{}}")
        run, path, base = active_run(fleet, fleet_file, classifier)
        base_run = fleet_file.parent / base if base is not None else None
        stable = stable_repository(settings)
        return cls(gateway, fleet_file, classifier, settings, fleet, stable, run, path, base_run)

    @property
    def folder(self) -> Path:
        """Folder of the proposal and the record."""
        return turn_folder(self.settings.journal, self.classifier)

    @property
    def record(self) -> TurnRecord | None:
        """The turn that is open; None if there is none."""
        record = read_turn(self.folder)
        return record if record is not None and record.outcome is None else None

    def below(self, run: str) -> Path:
        """A run of the fleet file as a path from here."""
        return self.fleet_file.parent / run

    @property
    def old_bundle(self) -> Bundle:
        """The bundle that answers.

        Raises:
            SpecError: the stable repository serves another one.
        """
        bundle = Bundle.open(self.below(self.old_run) / "bundle")
        served = Lane.read(self.stable / LANE).classifiers.get(self.classifier)
        if served != bundle.id:
            raise SpecError(
                f"{self.fleet_file}: {self.classifier}: the active run {self.old_run} is bundle {bundle.id:.12}, but "
                f"{self.stable} serves {served!s:.12}; make the run active that is served, or slipway assemble"
            )
        if bundle.spec.task == "multilabel":
            raise SpecError(f"{self.classifier}: several labels an image; a turn is made for one label an image alone")
        return bundle

    def new_run(self) -> str:
        """The first free name beside the active run: `runs/digits-2` after `runs/digits`."""
        found = _NUMBERED.fullmatch(self.old_run)
        stem, number = (found[1], int(found[2])) if found else (self.old_run, 1)
        while self.below(f"{stem}-{number + 1}").exists():
            number += 1
        return f"{stem}-{number + 1}"

    def engine_of(self) -> str | None:
        """Name of the engine that serves a head, by its base; None for a classifier with engines of its own."""
        return None if self.base_run is None else Choice.read(self.base_run / "engines/choice.json").chosen


def active_run(fleet: Fleet, source: Path, classifier: str) -> tuple[str, tuple[str, ...], str | None]:
    """The active run of a classifier, its keys in the fleet file, and the run of its base.

    Raises:
        SpecError: no turn can be made for it by this fleet file.
    """
    if fleet.lane != "cpu":
        raise SpecError(
            f"{source}: lane: {fleet.lane}; a turn builds for the cpu lane. Train and compile by hand, and name the "
            "run in release.candidate"
        )
    for name, base in fleet.bases.items():
        if classifier in base.named:
            return base.named[classifier], ("bases", name, "heads", classifier), base.base
    if classifier not in fleet.classifiers:
        named = sorted([*fleet.classifiers, *(head for base in fleet.bases.values() for head in base.named)])
        pattern = "; heads that a pattern finds cannot be tried: name them" if fleet.bases else ""
        raise SpecError(f"{source}: no classifier {classifier!r}; there are {', '.join(named) or 'none'}{pattern}")
    version = fleet.classifiers[classifier].active
    run = version.bundle.removesuffix("/bundle")
    if version.engines is None or version.engines != f"{run}/engines" or run == version.bundle:
        raise SpecError(
            f"{source}: classifiers.{classifier}.active: give the folder of a run with bundle/ and engines/ in it, "
            "such as runs/digits, so that the next run can stand beside it"
        )
    return run, ("classifiers", classifier, "active"), None


def write_spec(turn: Turn, record: TurnRecord) -> Path:
    """The spec of the new run, `spec.yaml`: that of the old one, with the new data, from the old weights.

    A file that is there stays, so that a person may change it. Where `spec_by_hand` has something to say, a person
    writes it.

    Raises:
        StorageError: it cannot be written.
    """
    run, old_run = turn.below(record.run), turn.below(record.old_run)
    path = run / "spec.yaml"
    if path.exists():
        return path
    spec = Spec.read(old_run / "bundle/spec.json").plain()
    spec["data"] |= _new_data(run)
    if turn.base_run is None:
        spec["backbone"] |= {"pretrained": True, "weights": str(old_run / WEIGHTS)}
    header = (
        f"# The spec of {record.old_run} with new data, for a turn. Changes stay; delete it to have it written again.\n"
    )
    write_file(path, header + dump_yaml(spec))
    Spec.read(path)
    return path


def spec_by_hand(turn: Turn, record: TurnRecord) -> str | None:
    """Return how a person writes the spec of the new run, whose data are there; None if nobody has to."""
    run, old_run = turn.below(record.run), turn.below(record.old_run)
    if turn.base_run is not None or (run / "spec.yaml").exists() or (old_run / WEIGHTS).is_file():
        return None
    return (
        f"{old_run / WEIGHTS} is not there to train from: {record.old_run} was imported, or its checkpoint is gone. "
        f"Put it back, or write {run / 'spec.yaml'}: {old_run / 'bundle/spec.json'} with a backbone of your own, and\n"
        + dump_yaml({"data": _new_data(run)}).rstrip()
    )


def _new_data(run: Path) -> dict[str, str | None]:
    """The keys of `data` that the new run does not take from the old one."""
    data = run / "data"
    return {
        **{"root": str(data), "csv": str(data / "data.csv"), "labels": str(data / "labels.txt")},
        "group_column": "group" if _has_groups(data / "data.csv") else None,
    }


def _has_groups(table: Path) -> bool:
    with table.open(encoding="utf-8") as file:
        return "group" in file.readline().strip().split(",")
