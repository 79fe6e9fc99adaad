"""A checked repository as serving needs it: its models, the served ensembles, and their folders."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from slipway.contract import Lane, Manifest, ManifestError, ServingError, read_labels
from slipway.contract.lane import MOST_GPUS
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.chain import broken_links
from slipway.lint.models import Model, ensembles, read_models

_AGAIN = "assembled again while it was being read; try again"


@dataclass(frozen=True)
class Contents:
    """The content of a repository at the time when it was opened."""

    origin: Path
    """The path of the repository as the user gave it."""
    lane: Lane
    models: Mapping[str, Model]
    manifest: bytes
    hashes: Mapping[str, str]
    """sha256 of each file by its path, as the manifest has them."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check every file of the repository at `path`, and every link between its models.

        Raises:
            ManifestError: it is not a repository, or one of its files was changed.
            ServingError: its models do not fit together, or it was replaced while it was read.
        """
        written = _manifest(path)
        try:
            manifest = Manifest.open(path, kind="repository")
        except ManifestError:
            if written and _manifest(path) != written:
                raise ServingError(f"{path}: {_AGAIN}") from None
            raise
        lane = Lane.read(path / "lane.json")
        models = read_models(path)
        for model, problem in broken_links(lane, models, manifest.outputs):
            raise ServingError(f"{path / model}: {problem}; assemble the repository again")
        return cls(path, lane, models, written, manifest.outputs)

    def with_own_ensembles(self, folder: Path, *, like: Self | None) -> Self:
        """The same contents with the ensembles copied to a private `folder`, so that a reload can be undone; those that
        are the same in `like` are its copies."""
        own = {}
        for name in self.steps:
            if like is not None and name in like.steps and self.files(name) == like.files(name):
                own[name] = like.models[name]
            else:
                shutil.copytree(self.models[name].folder, folder / name)
                own[name] = replace(self.models[name], folder=folder / name)
        return replace(self, models={**self.models, **own})

    def files(self, model: str) -> dict[str, str]:
        """sha256 of each file of a model."""
        return self._files_of.get(model, {})

    @cached_property
    def _files_of(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for path, sha256 in self.hashes.items():
            found.setdefault(path.partition("/")[0], {})[path] = sha256
        return found

    def check_unchanged(self) -> None:
        """Raises ServingError if the repository was replaced since it was opened."""
        if _manifest(self.origin) != self.manifest:
            raise ServingError(f"{self.origin}: {_AGAIN}")

    @cached_property
    def steps(self) -> dict[str, tuple[str, ...]]:
        """Ensemble to its steps, in the order in which an image passes through them."""
        return {name: steps for name, steps in ensembles(self.models).items() if name in self.lane.ensembles}

    def needed(self, names: Iterable[str] | None = None) -> list[str]:
        """The steps of the ensembles `names`, or of all ensembles; each step once."""
        chosen = self.steps if names is None else {name: self.steps[name] for name in names}
        return list(dict.fromkeys(step for steps in chosen.values() for step in steps))

    def stubs(self, *, gpus: int = MOST_GPUS) -> int:
        """The number of Python-backend instances on a machine with `gpus` GPUs, each of them a process."""
        models = (self.models[step] for step in self.needed())
        return sum(model.instances(gpus=gpus) for model in models if model.backend == "python")

    def bundles(self, ensemble: str) -> dict[str, str]:
        """The bundles that must answer for `ensemble`: prefix of the output names to bundle id."""
        if ensemble in self.lane.multi:
            return {f"{name}.": self.lane.classifiers[name] for name in self.lane.multi[ensemble]}
        return {"": self.lane.classifiers[self.lane.ensembles[ensemble][0]]}

    def labels(self, classifier: str) -> tuple[str, ...]:
        """The labels of a classifier, in the order of its classes."""
        return tuple(read_labels(self.models[f"{classifier}_full"].folder / "labels.txt"))


def _manifest(path: Path) -> bytes:
    """The bytes of the manifest; empty if there is none."""
    try:
        return (path / MANIFEST).read_bytes()
    except OSError:
        return b""
