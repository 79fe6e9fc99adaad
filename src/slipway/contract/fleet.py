"""`Fleet`: the one YAML that says which classifiers a model repository serves, and which bundle of each answers."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from slipway.contract.base import Contract
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving, check_name

Name = Annotated[str, AfterValidator(check_name)]
Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
"""Relative to the fleet file, or absolute."""


class Version(Contract):
    """A bundle and what was compiled from it. A single folder is short for the `bundle/` and `engines/` in it."""

    bundle: Folder
    engines: Folder | None = None
    """A folder of engine folders, to take what the lane serves: on the cpu lane what `choice.json` names, on the gpu
    lane every plan of the fastest precision that passed."""
    engine: tuple[Folder, ...] = ()
    """The engines themselves: one on the cpu lane; plans for several GPUs on the gpu lane."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_run(cls, data: Any) -> Any:
        if not isinstance(data, str) or not data:
            return data
        return {"bundle": str(PurePosixPath(data, "bundle")), "engines": str(PurePosixPath(data, "engines"))}

    @model_validator(mode="after")
    def _engines_are_named_one_way(self) -> Self:
        if (self.engines is None) == (not self.engine):
            raise ValueError("give engines, a folder of them to choose from, or engine, a list of folders; one of both")
        return self


class FleetClassifier(Contract):
    """One classifier: the version that answers, and those that stay at hand."""

    active: Version
    keep: tuple[Version, ...] = ()
    """Their steps are in the repository too; no ensemble runs them. Class ids must be those of the active one."""
    serving: Serving = Serving()
    """The keys that are given here go before those of the fleet."""


class Fleet(Contract):
    """`fleet.yaml`. Names of classifiers are those that clients call, whatever the bundles are called."""

    lane: LaneName = "cpu"
    serving: Serving = Serving()
    """The keys that are given here go before those of every bundle's own spec."""
    classifiers: dict[Name, FleetClassifier] = Field(min_length=1)
    multi: dict[Name, tuple[Name, ...]] = Field(default={})
    """Ensembles that decode an image once and answer for several classifiers: name to classifiers."""

    @field_validator("multi")
    @classmethod
    def _a_multi_names_classifiers(
        cls, multi: dict[str, tuple[str, ...]], info: ValidationInfo
    ) -> dict[str, tuple[str, ...]]:
        if "classifiers" not in info.data:  # they are wrong themselves
            return multi
        classifiers = info.data["classifiers"]
        for name, members in multi.items():
            unknown = [member for member in members if member not in classifiers]
            if unknown:
                raise ValueError(f"{name} names {', '.join(unknown)}; the classifiers are {', '.join(classifiers)}")
            if len(set(members)) != len(members) or len(members) < 2:
                raise ValueError(f"{name} names {', '.join(members) or 'none'}; give two or more, each once")
            if name in classifiers:
                raise ValueError(f"{name} is the name of a classifier; give the ensemble another")
        return multi

    def serving_of(self, name: str, spec: Serving) -> Serving:
        """How classifier `name` runs: its bundle's `spec`, changed by the fleet, changed by its own entry."""
        changes = (self.serving, self.classifiers[name].serving)
        return spec.model_copy(update={key: getattr(c, key) for c in changes for key in c.model_fields_set})
