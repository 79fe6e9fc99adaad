"""Takes over heads that a repository has already, so that one new head does not open a thousand others."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

from slipway.contract import Lane, Manifest, ManifestError, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.lint.heads import FOLDER, heads_of
from slipway.lint.models import CONFIG, read_model, type_name
from slipway.repository.config import Tensor
from slipway.repository.heads import HeadAnswer
from slipway.repository.step import Content, Files
from slipway.system.files import Identity, identities_below, sha256_bytes, sha256_file

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
    identities: Mapping[str, Identity]
    """Identity of each file before it was hashed."""

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None if `path` holds no such repository; then every bundle is opened."""
        try:
            identities = identities_below(path)
            manifest = Manifest.open(path, kind="repository", found=identities)
            lane = Lane.read(path / LANE)
        except (ManifestError, SpecError, NotADirectoryError):
            return None
        return cls(path, manifest, lane, identities) if manifest.inputs.get(CODE) == code_sha256() else None

    def group(self, inputs: Mapping[str, Mapping[str, str]], *, base_steps: Sequence[str]) -> "Group | None":
        """The group of exactly the heads in `inputs`, if they were made from these files; else None.

        Args:
            inputs: of each head, sha256 of what it is made from, by the names that the manifest gives them.
            base_steps: the steps that the ensembles of the group must run first.
        """
        step = self._step_of.get(next(iter(inputs)), "")
        if self._heads_of.get(step, set()) != inputs.keys() or not self._runs_after(step, base_steps):
            return None
        if not all(self._made_from(of_head) for of_head in inputs.values()) or not all(map(self._is_whole, inputs)):
            return None
        folders = (step, *inputs, *(f"{name}_full" for name in inputs))
        files = {name: self._content(name) for folder in folders for name in self._files[folder]}
        bundles = {name: self.lane.classifiers[name] for name in inputs}
        return Group(step, files, bundles, self._stand_ins & inputs.keys())

    def head(self, name: str, inputs: Mapping[str, str], *, base_steps: Sequence[str]) -> "Taken | None":
        """One head, for a group of which others changed, if it was made from these files; else None. Arguments as of
        `group`."""
        step = self._step_of.get(name, "")
        if not step or not self._made_from(inputs) or not self._runs_after(step, base_steps):
            return None
        if not self._is_whole(name) or name not in self._outputs(step):
            return None
        folder = f"{step}/1/{FOLDER}/{name}/"
        files = {path.removeprefix(folder): self._content(path) for path in self._files_of_head[name]}
        outputs = self._outputs(step)[name].items()
        tensors = tuple(Tensor(tensor, type_name(output), tuple(output.dims)) for tensor, output in outputs)
        ensembles = {path: self._content(path) for own in (name, f"{name}_full") for path in self._files[own]}
        answer = HeadAnswer(name, tensors, files)
        return Taken(answer, self.lane.classifiers[name], step, ensembles, stood_in=name in self._stand_ins)

    def _is_whole(self, name: str) -> bool:
        """Whether a head has its ensembles, and lane.json its bundle: another process may exchange the repository, and
        another program seal a wrong one."""
        return name in self.lane.classifiers and {name, f"{name}_full"} <= self._files.keys()

    def _made_from(self, inputs: Mapping[str, str]) -> bool:
        return all(self.manifest.inputs.get(name) == sha256 for name, sha256 in inputs.items())

    def _runs_after(self, step: str, base_steps: Sequence[str]) -> bool:
        """Whether the ensembles of a group run these steps before it."""
        if step not in self._before:
            config = read_model(self.path / min(self._heads_of[step])).config if step in self._heads_of else None
            steps = [one.model_name for one in config.ensemble_scheduling.step] if config else []
            self._before[step] = tuple(steps[:-1])
        return self._before[step] == tuple(base_steps)

    def _outputs(self, step: str) -> Mapping[str, Mapping[str, Any]]:
        """The outputs of each head of a group, in the order of its configuration."""
        if step not in self._read:
            self._read[step] = heads_of(read_model(self.path / step))
        return self._read[step]

    def _content(self, name: str) -> Content:
        found = self.identities[name]
        return Content(self.manifest.outputs[name], found.size, f"{self.path}/{name}", found)

    @cached_property
    def _before(self) -> dict[str, tuple[str, ...]]:
        return {}

    @cached_property
    def _read(self) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        return {}

    @cached_property
    def _stand_ins(self) -> Set[str]:
        return {head for base in self.lane.bases.values() for head in base.stand_ins or ()}

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The files of each model."""
        return _grouped(self.manifest.outputs, part=0)

    @cached_property
    def _files_of_head(self) -> dict[str, list[str]]:
        """The files of each head in the step of its group."""
        return _grouped((name for name in self.manifest.outputs if f"/1/{FOLDER}/" in name), part=3)

    @cached_property
    def _step_of(self) -> dict[str, str]:
        """The step of each head's group."""
        return {head: files[0].partition("/")[0] for head, files in self._files_of_head.items()}

    @cached_property
    def _heads_of(self) -> dict[str, set[str]]:
        """The heads of each group's step."""
        found: dict[str, set[str]] = {}
        for head, step in self._step_of.items():
            found.setdefault(step, set()).add(head)
        return found


def _grouped(paths: Iterable[str], *, part: int) -> dict[str, list[str]]:
    """Paths by one of their parts."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path.split("/", part + 1)[part], []).append(path)
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


@dataclass(frozen=True)
class Taken:
    """A head as it is in a repository."""

    answer: HeadAnswer
    bundle: str
    step: str
    """The step of its group."""
    ensembles: Files
    stood_in: bool

    def over(self, step: str) -> Files:
        """The ensembles over another step: nothing else of them depends on the other heads of the group.

        Raises:
            ManifestError: the configuration of one changed meanwhile.
        """
        files = dict(self.ensembles)
        before, after = (f'model_name: "{name}"'.encode() for name in (self.step, step))
        for path in (path for path in files if path.endswith(f"/{CONFIG}")) if self.step != step else ():
            files[path] = Content.of(files[path].read().replace(before, after))
        return files
