"""`Fleet`: the YAML file of the classifiers that a model repository serves, and the bundle that answers for each."""

import functools
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from slipway.contract.lane import LaneName
from slipway.contract.release import FleetRelease, Folder, Name
from slipway.contract.serving import Serving
from slipway.contract.turn import FleetTurn
from slipway.contract.typed_file import Contract
from slipway.errors import SpecError

_Settings = TypeVar("_Settings", bound=Contract)


class Version(Contract):
    """A bundle and its engines. A single folder is short for the `bundle/` and `engines/` in it."""

    bundle: Folder
    """Folder of the bundle, absolute or relative to the fleet file."""
    engines: Folder | None = None
    """Folder of engines to choose from. The cpu lane takes the one that `choice.json` names; the gpu lane takes, for
    each compute capability, the plan that `choice-sm90.json` and its like name."""
    engine: tuple[Folder, ...] = ()
    """Engine folders: one for the cpu lane; plans for several GPUs for the gpu lane."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_run(cls, data: Any) -> Any:
        if not isinstance(data, str) or not data:
            return data
        return {"bundle": str(PurePosixPath(data, "bundle")), "engines": str(PurePosixPath(data, "engines"))}

    @model_validator(mode="after")
    def _engines_are_named_one_way(self) -> Self:
        if (self.engines is None) == (not self.engine):
            raise ValueError("give either engines (a folder of them to choose from) or engine (a list of folders)")
        return self


class FleetClassifier(Contract):
    """One classifier: the version that answers, and those kept for a rollback."""

    active: Version
    """The version that answers: a run's folder, or its bundle and engines."""
    keep: tuple[Version, ...] = ()
    """Versions kept in the repository without an ensemble. Their class ids must match the active version's."""
    serving: Serving = Serving()
    """Serving options that override the fleet's."""


def _kind_of_heads(given: Any) -> str | None:
    kinds: dict[type, str] = {str: "pattern", list: "list", tuple: "list", dict: "names"}
    return kinds.get(type(given)) if given else None


def _found(pattern: str, root: Path) -> list[Path]:
    if (root / pattern / "bundle").is_dir():  # the name of a folder, whatever signs of a pattern it has
        return [root / pattern]
    found = [root / path for path in glob(pattern, root_dir=root, recursive=True, include_hidden=True)]
    runs = [path for path in found if (path / "bundle").is_dir()]
    if not runs:
        inside = f"; for the runs in this folder, write {pattern.rstrip('/')}/*" if found == [root / pattern] else ""
        raise SpecError(f"{root / pattern}: finds no run of slipway head{inside}; make one, or write where they are")
    return runs


class FleetBase(Contract):
    """A base, and the heads that stand on it."""

    base: Folder
    """The folder of its run: `base/` and `engines/` are in it."""
    heads: Annotated[
        Annotated[Folder, Tag("pattern")]
        | Annotated[tuple[Folder, ...], Tag("list")]
        | Annotated[dict[Name, Folder], Tag("names")],
        Discriminator(
            _kind_of_heads,
            custom_error_type="heads",
            custom_error_message="name at least one head: by a pattern of run folders (heads/*), a list of run folders "
            "or patterns, or a mapping of names to run folders",
        ),
    ]
    """A pattern of run folders, such as `heads/*`, or a list of run folders and patterns, whose classifiers keep their
    bundles' names; or the folder of each name."""
    serving: Serving = Serving()
    """Serving options of the base's step that override the fleet's."""

    @property
    def named(self) -> dict[str, str]:
        """The folders by name; empty with patterns."""
        return self.heads if isinstance(self.heads, dict) else {}

    def runs(self, root: Path) -> list[Path]:
        """The run folders of all heads.

        Args:
            root: the folder that relative ones are relative to.

        Raises:
            SpecError: a pattern finds no run of a head.
        """
        if isinstance(self.heads, dict):
            return [root / folder for folder in self.heads.values()]
        patterns = (self.heads,) if isinstance(self.heads, str) else self.heads
        return sorted({run for pattern in patterns for run in _found(pattern, root)})


class Fleet(Contract):
    """`fleet.yaml`. Clients call classifiers by the names given here, whatever the bundles' own names."""

    lane: LaneName = "cpu"
    """Lane of the repository: `cpu` for OpenVINO's engines, `gpu` for TensorRT's plans."""
    serving: Serving = Serving()
    """Serving options that override those of every bundle's spec."""
    classifiers: dict[Name, FleetClassifier] = Field(default={})
    """Classifiers with a network of their own, by the names that clients call."""
    bases: dict[Name, FleetBase] = Field(default={})
    """Bases with their heads, by name (docs/heads.md)."""
    multi: dict[Name, tuple[Name, ...]] = Field(default={})
    """Ensembles that decode an image once and answer for several classifiers, by name."""
    release: FleetRelease | None = None
    """A candidate that is tried beside this fleet (docs/release.md); the served repository does not depend on it."""
    turn: FleetTurn = FleetTurn()
    """Reasons to train a classifier again (docs/turn.md); the served repository does not depend on them."""

    @field_validator("multi")
    @classmethod
    def _a_multi_names_classifiers(
        cls, multi: dict[str, tuple[str, ...]], info: ValidationInfo
    ) -> dict[str, tuple[str, ...]]:
        if not {"classifiers", "bases"} <= info.data.keys():  # they failed their own check
            return multi
        bases = info.data["bases"].values()
        classifiers = {*info.data["classifiers"], *(name for base in bases for name in base.named)}
        by_pattern = any(not base.named for base in bases)
        for name, members in multi.items():
            unknown = [member for member in members if member not in classifiers]
            if unknown and not by_pattern:  # else known once the folders are opened
                raise ValueError(
                    f"{name} names {', '.join(unknown)}; the classifiers are {', '.join(sorted(classifiers))}"
                )
            if len(set(members)) != len(members) or len(members) < 2:
                raise ValueError(f"{name} names {', '.join(members) or 'none'}; give two or more, each once")
            if name in classifiers:
                raise ValueError(f"{name} is the name of a classifier; give the ensemble another name")
        return multi

    @model_validator(mode="after")
    def _something_is_served_once(self) -> Self:
        if not self.classifiers and not self.bases:
            raise ValueError("names neither classifiers nor bases; a repository serves at least one classifier")
        names = [*self.classifiers, *(name for base in self.bases.values() for name in base.named)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: the name of two classifiers; each name may appear once")
        return self

    @model_validator(mode="after")
    def _the_candidate_is_of_this_fleet(self) -> Self:
        names = [*self.classifiers, *(name for base in self.bases.values() for name in base.named)]
        if self.release and (unknown := sorted(self.release.candidate.keys() - {*names})):
            pattern = "; heads that a pattern finds cannot be tried: name them" if self.bases else ""
            raise ValueError(
                f"release.candidate names {', '.join(unknown)}; the classifiers are {', '.join(sorted(names))}{pattern}"
            )
        return self

    def with_candidate(self) -> Self:
        """Return this fleet with the candidate's runs active, and without `release`.

        Raises:
            SpecError: the fleet has no `release`.
        """
        if self.release is None:
            raise SpecError("the fleet file has no release:; name the candidate there (docs/release.md)")
        runs = self.release.candidate
        classifiers = {
            name: own.model_copy(update={"active": Version.parse(runs[name], source=name)} if name in runs else {})
            for name, own in self.classifiers.items()
        }
        bases = {
            name: base.model_copy(
                update={"heads": {head: runs.get(head, run) for head, run in base.named.items()}} if base.named else {}
            )
            for name, base in self.bases.items()
        }
        return self.model_copy(update={"classifiers": classifiers, "bases": bases, "release": None})

    def serving_of(self, name: str, spec: Serving) -> Serving:
        """Serving options of `name`: its bundle's `spec`, overridden by the fleet, then by its own entry."""
        changes = (self.serving, self.classifiers[name].serving)
        return functools.reduce(overridden, changes, spec)


def overridden(settings: _Settings, by: _Settings) -> _Settings:
    """`settings` with the keys that were given in `by`, nested keys included."""
    given = {key: (getattr(settings, key), getattr(by, key)) for key in by.model_fields_set}
    return settings.model_copy(
        update={k: overridden(old, new) if isinstance(new, Contract) else new for k, (old, new) in given.items()}
    )
