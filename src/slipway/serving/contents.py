"""A checked repository as serving needs it: its models, the served ensembles, their folders, and the parts that equal
another repository's, so that a reload checks only what changed."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from slipway.contract import Lane, Manifest, ManifestError, ServingError
from slipway.contract.lane import MOST_GPUS
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import NONE_KNOWN, Known
from slipway.lint.chain import broken_links
from slipway.lint.heads import FOLDER, GROUP
from slipway.lint.models import CONFIG, Model, Repository, ensembles, read_models
from slipway.system.files import Identity, entries_below, identities_below

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
    known: Known
    """Identities of the hashed files, by which a changed file is noticed."""
    own: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """Content of each file of the ensembles, which the repository may replace; empty until they are taken."""

    @classmethod
    def open(cls, path: Path, *, like: Self | None = None) -> Self:
        """Check every file of the repository at `path`, and every link between its models; but for those that were
        checked when `like` was opened, and are still the same.

        Raises:
            ManifestError: it is not a repository, or one of its files was changed.
            ServingError: its models do not fit together, or it was replaced while it was read.
        """
        written = _manifest(path)
        try:
            identities = _identities(path)
            known = like.known if like else NONE_KNOWN
            manifest = Manifest.open(path, kind="repository", known=known, found=identities)
        except ManifestError:
            if written and _manifest(path) != written:
                raise ServingError(f"{path}: {_AGAIN}") from None
            raise
        lane = Lane.read(path / "lane.json")
        known = {name: (sha256, identities[name]) for name, sha256 in manifest.outputs.items()} if identities else {}
        contents = cls(path, lane, {}, written, manifest.outputs, known)
        contents = replace(contents, models=read_models(path, known=contents._models_of(like)))
        unchecked = Repository(contents.models, lane).without(contents.same_as(like))
        for model, problem in broken_links(unchecked, manifest.outputs):
            raise ServingError(f"{path / model}: {problem}; assemble the repository again")
        return contents

    def same_as(self, other: Self | None) -> set[str]:
        """Classifiers whose ensembles and steps are the same in `other`, file by file; but for those that an ensemble
        of several classifiers runs. Of heads, steps of groups may differ in other heads.

        One classifier of each step that differs is never among them, since somebody has to run a step; nor are all,
        since a lane without a classifier is a fault.
        """
        if other is None:
            return set()
        apart = {name for members in self.lane.multi.values() for name in members}
        alike = _Alike(self, other)
        same = {name for name in self.lane.classifiers.keys() - apart if alike.classifier(name)}
        left = {step: name for name in self.lane.classifiers.keys() - same for step in self.steps.get(name, ())}
        for name in sorted(same):
            if any(step not in left and not alike.step(step) for step in self.steps[name]):
                left |= dict.fromkeys(self.steps[name], name)
                same.remove(name)
        return same - {min(same)} if same == self.lane.classifiers.keys() else same

    def _models_of(self, other: Self | None) -> dict[str, Model]:
        """The models of `other` whose files are the same here."""
        if other is None:
            return {}
        there = {name: model for name, model in other.models.items() if model.problem is None}
        return {name: model for name, model in there.items() if self.files(name) == other.files(name) != {}}

    def with_own_ensembles(self, *, like: Self | None) -> Self:
        """Return these contents with the files of the ensembles, so that a reload can be undone. Files that are the
        same in `like` are shared with it."""
        own = {}
        for name in self.steps:
            if like is not None and name in like.own and self.files(name) == like.files(name):
                own[name] = like.own[name]
            else:
                folder = self.models[name].folder
                own[name] = {path: Path(entry.path).read_bytes() for path, entry in entries_below(folder).items()}
        return replace(self, own=own)

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
        text = self.own[f"{classifier}_full"]["labels.txt"].decode()
        return tuple(text.removesuffix("\n").split("\n"))


class _Alike:
    """The steps and classifiers that are the same in two repositories, whose files were compared with their hashes."""

    def __init__(self, new: Contents, old: Contents) -> None:
        self._new, self._old = new, old
        self._steps: dict[str, bool] = {}
        self._heads: dict[tuple[str, str], set[str]] = {}

    def step(self, name: str) -> bool:
        if name not in self._steps:
            self._steps[name] = self._new.files(name) == self._old.files(name) != {}
        return self._steps[name]

    def classifier(self, name: str) -> bool:
        """Whether both ensembles and their steps are the same; of a group of heads, the part of this head."""
        bundles = {contents.lane.classifiers.get(name) for contents in (self._new, self._old)}
        return len(bundles) == 1 and self._ensemble(name, name) and self._ensemble(f"{name}_full", name)

    def _ensemble(self, ensemble: str, classifier: str) -> bool:
        new, old = self._new, self._old
        if not new.steps.get(ensemble) or not old.steps.get(ensemble):
            return False
        if new.files(ensemble) == old.files(ensemble):
            return all(map(self.step, new.steps[ensemble]))
        *first, group = new.steps[ensemble]
        *first_before, before = old.steps[ensemble]
        there = group.startswith(GROUP) and group in new.models and before in old.models
        if first != first_before or not all(map(self.step, first)) or not there:
            return False
        but_config = {f"{ensemble}/{CONFIG}": ""}
        if new.files(ensemble) | but_config != old.files(ensemble) | but_config:
            return False
        config = deepcopy(new.models[ensemble].config)
        config.ensemble_scheduling.step[-1].model_name = before
        return bool(config == old.models[ensemble].config) and classifier in self._same_heads(group, before)

    def _same_heads(self, group: str, before: str) -> set[str]:
        """The heads that are the same in two steps; none if the steps differ in anything but heads."""
        if (group, before) not in self._heads:
            new, old = _by_head(self._new, group), _by_head(self._old, before)
            same = {head for head in new.keys() & old.keys() if new[head] == old[head]}
            self._heads[group, before] = same if "" in same else set()
        return self._heads[group, before]


def _by_head(contents: Contents, group: str) -> dict[str, list[object]]:
    """Outputs and hashes of the files of each head; with the key "", all else of the step but its name."""
    rest = deepcopy(contents.models[group].config)
    rest.ClearField("name")
    rest.ClearField("output")
    found: dict[str, list[object]] = {"": [rest]}
    for output in contents.models[group].config.output:
        found.setdefault(output.name.rpartition(".")[0], []).append(output)
    for path, sha256 in contents.files(group).items():
        _, *inside = path.split("/")
        if inside != [CONFIG]:
            of_head = inside[1:2] == [FOLDER] and len(inside) > 2
            found.setdefault(inside[2] if of_head else "", []).append((inside, sha256))
    return found


def _manifest(path: Path) -> bytes:
    """The bytes of the manifest; empty if there is none."""
    try:
        return (path / MANIFEST).read_bytes()
    except OSError:
        return b""


def _identities(path: Path) -> dict[str, Identity] | None:
    """Return an identity of each file below `path`; None for a folder that is not a repository, or has a link."""
    try:
        return identities_below(path)
    except (ManifestError, NotADirectoryError):  # `Manifest.open` says why
        return None
