"""A checked repository, as serving needs it: its models, which of them are asked for, and where they lie."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from slipway.contract import Lane, Manifest, ManifestError, ServingError, read_labels
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.chain import broken_links
from slipway.lint.models import Model, ensembles, read_models

_AGAIN = "assembled again while it was being read; try again"


@dataclass(frozen=True)
class Contents:
    """What a repository held when it was opened."""

    origin: Path
    """The repository that the user knows."""
    lane: Lane
    models: Mapping[str, Model]
    manifest: bytes

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check every file of the repository at `path`, and every link between its models.

        Raises:
            ManifestError: it is none, or a file of it was changed.
            ServingError: its models do not fit together, or another repository took its place while it was read.
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
        return cls(path, lane, models, written)

    def with_own_ensembles(self, folder: Path) -> Self:
        """The same, with the ensembles copied to a private `folder`: they are needed to go back to them."""
        copies = {name: folder / name for name in self.steps}
        for name, copy in copies.items():
            shutil.copytree(self.models[name].folder, copy)
        own = {name: replace(self.models[name], folder=copy) for name, copy in copies.items()}
        return replace(self, models={**self.models, **own})

    def check_unchanged(self) -> None:
        """Raises ServingError when another repository took this one's place since it was opened."""
        if _manifest(self.origin) != self.manifest:
            raise ServingError(f"{self.origin}: {_AGAIN}")

    @property
    def steps(self) -> dict[str, tuple[str, ...]]:
        """Of every ensemble that is served, in the order in which an image meets them."""
        return {name: steps for name, steps in ensembles(self.models).items() if name in self.lane.ensembles}

    def needed(self, names: Iterable[str] | None = None) -> list[str]:
        """The steps of the ensembles `names`, or of all, each once."""
        chosen = self.steps if names is None else {name: self.steps[name] for name in names}
        return list(dict.fromkeys(step for steps in chosen.values() for step in steps))

    def bundles(self, ensemble: str) -> dict[str, str]:
        """Who has to answer when `ensemble` is asked: what its outputs begin with, to the bundle id."""
        if ensemble in self.lane.multi:
            return {f"{name}.": self.lane.classifiers[name] for name in self.lane.multi[ensemble]}
        return {"": self.lane.classifiers[self.lane.ensembles[ensemble][0]]}

    def labels(self, classifier: str) -> tuple[str, ...]:
        """In class order."""
        return tuple(read_labels(self.models[f"{classifier}_full"].folder / "labels.txt"))


def _manifest(path: Path) -> bytes:
    """Empty where there is none."""
    try:
        return (path / MANIFEST).read_bytes()
    except OSError:
        return b""
