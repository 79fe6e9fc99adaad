"""Takes over groups of heads that a repository has already, so that one new head does not open a thousand others."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Self

from slipway.contract import Lane, Manifest, ManifestError, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.lint.heads import FOLDER
from slipway.lint.models import read_model
from slipway.repository.step import Content, Files
from slipway.system.files import sha256_bytes, sha256_file

CODE = "slipway"
"""Input of a repository with heads: the code that wrote and linted it."""


@cache
def code_sha256() -> str:
    """sha256 of the package's modules. Other code may write other files from the same bundles."""
    found = sorted(Path(str(resources.files("slipway"))).rglob("*.py"))
    return sha256_bytes("".join(sha256_file(path) for path in found).encode())


@dataclass(frozen=True)
class Present:
    """A repository that this code wrote, whose files all match its manifest."""

    path: Path
    manifest: Manifest
    lane: Lane

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None if `path` holds no such repository; then every bundle is opened."""
        try:
            manifest = Manifest.open(path, kind="repository")
            lane = Lane.read(path / LANE)
        except (ManifestError, SpecError):
            return None
        return cls(path, manifest, lane) if manifest.inputs.get(CODE) == code_sha256() else None

    def group(self, inputs: Mapping[str, Mapping[str, str]], *, base_steps: Sequence[str]) -> "Group | None":
        """The group of exactly the heads in `inputs`, if they were made from these files; else None.

        Args:
            inputs: of each head, sha256 of what it is made from, by the names that the manifest gives them.
            base_steps: the steps that the ensembles of the group must run first.
        """
        given = (part for of_head in inputs.values() for part in of_head.items())
        if any(self.manifest.inputs.get(name) != sha256 for name, sha256 in given):
            return None
        config = read_model(self.path / next(iter(inputs))).config
        *first, step = (step.model_name for step in config.ensemble_scheduling.step)
        heads = {name.split("/")[3] for name in self._files.get(step, ()) if f"/{FOLDER}/" in name}
        if first != [*base_steps] or heads != inputs.keys():
            return None
        folders = (step, *inputs, *(f"{name}_full" for name in inputs))
        files = {
            name: Content(self.manifest.outputs[name], (self.path / name).stat().st_size, self.path / name)
            for folder in folders
            for name in self._files[folder]
        }
        fitted_elsewhere = {head for base in self.lane.bases.values() for head in base.stand_ins or ()}
        bundles = {name: self.lane.classifiers[name] for name in inputs}
        return Group(step, files, bundles, fitted_elsewhere & inputs.keys())

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The files of each model."""
        found: dict[str, list[str]] = {}
        for name in self.manifest.outputs:
            found.setdefault(name.partition("/")[0], []).append(name)
        return found


@dataclass(frozen=True)
class Group:
    """A group of heads as it is in a repository: its step, and the ensembles of its heads."""

    step: str
    files: Files
    bundles: Mapping[str, str]
    """Bundle id of each head."""
    stand_ins: Set[str]
    """Heads that were fitted to the typed graph of a plan."""
