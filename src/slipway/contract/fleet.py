"""`Fleet`: the one YAML that says which classifiers a model repository serves, and which bundle of each answers."""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from slipway.contract.base import Contract
from slipway.contract.errors import SpecError
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving, check_name

MAX_FILE_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Keys and values of a fleet file, those that an alias repeats counted again."""
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

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a fleet file.

        Raises:
            SpecError: names every wrong key, what was given and what is allowed; also a key that is there twice (YAML
                takes the last without a word), and a file that is far too large for a fleet.
        """
        _check_yaml(path)
        return super().read(path)

    def serving_of(self, name: str, spec: Serving) -> Serving:
        """How classifier `name` runs: its bundle's `spec`, changed by the fleet, changed by its own entry."""
        changes = (self.serving, self.classifiers[name].serving)
        return spec.model_copy(update={key: getattr(c, key) for c in changes for key in c.model_fields_set})


def _check_yaml(path: Path) -> None:
    """Refuse what YAML would take in silence, or for minutes; whatever else is wrong is for `Contract.read` to say."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SpecError(f"{path}: {size} bytes; a fleet file has {MAX_FILE_BYTES} at most")
        unseen = [yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)]
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    values = 0
    while unseen:
        node = unseen.pop()
        values += 1
        if values > MAX_VALUES:
            raise SpecError(f"{path}: more than {MAX_VALUES} keys and values, with what its aliases repeat")
        if isinstance(node, yaml.MappingNode):
            for key, times in Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)).items():
                if times > 1:
                    raise SpecError(f"{path}: {key!r} is there {times} times, near line {node.start_mark.line + 1}")
            unseen += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            unseen += node.value
