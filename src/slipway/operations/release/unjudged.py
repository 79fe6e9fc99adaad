"""Finds what a candidate would change without being judged for it: ensembles of other classifiers that differ."""

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from slipway.contract import Lane, Manifest
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.heads import FOLDER, GROUP
from slipway.lint.models import CONFIG, ensembles, read_model

_GROUP_NAME = re.compile(rf"\b{GROUP}[0-9a-f]+\b")


class ServedFiles:
    """Files that answer in a repository, by the hashes of its manifest."""

    def __init__(self, repository: Path, lane: Lane) -> None:
        self._repository, self.lane = repository, lane

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        """sha256 of each file of each model, by its path below the model."""
        found: dict[str, dict[str, str]] = {}
        for path, sha256 in Manifest.read(self._repository / MANIFEST).outputs.items():
            model, _, file = path.partition("/")
            found.setdefault(model, {})[file] = sha256
        return found

    def parts(self, ensemble: str) -> dict[str, object]:
        """Return the parts that answer for `ensemble`: its own files, and those of its steps. The step of a group of
        heads counts without its name and without the heads that the ensemble does not run, since any other head changes
        both."""
        own: dict[str, object] = {**self.models[ensemble]}
        if any(head in base.heads for base in self.lane.bases.values() for head in self.lane.ensembles[ensemble]):
            text = (self._repository / ensemble / CONFIG).read_text(encoding="utf-8")
            own[CONFIG] = _GROUP_NAME.sub(GROUP, text)
        for step in ensembles({ensemble: read_model(self._repository / ensemble)})[ensemble]:
            files = self.models[step]
            if step.startswith(GROUP):
                own[GROUP] = dict(self._of_group(files, self.lane.ensembles[ensemble]))
            else:
                own[step] = files
        return own

    @staticmethod
    def _of_group(files: dict[str, str], heads: Collection[str]) -> Iterator[tuple[str, str]]:
        for path, sha256 in files.items():
            _, *below = path.split("/")
            if path != CONFIG and (below[0] != FOLDER or below[1] in heads):
                yield path, sha256


def differing(stable: ServedFiles, candidate: ServedFiles, *, tried: Collection[str]) -> dict[str, str]:
    """Ensembles of both repositories that run no classifier of `tried` and differ, each with the differing parts.

    Raises:
        ManifestError: a manifest is missing or damaged.
    """
    steps = stable.models.keys() & candidate.models.keys() - candidate.lane.ensembles.keys()
    altered = [step for step in steps if stable.models[step] != candidate.models[step]]
    found = {}
    for name, answering in candidate.lane.ensembles.items():
        same = stable.models[name] == candidate.models[name] and not altered
        if same or set(answering) & set(tried):
            continue
        before, after = stable.parts(name), candidate.parts(name)
        parts = {part for part in before.keys() | after.keys() if before.get(part) != after.get(part)}
        if parts:
            found[name] = ", ".join(sorted({_kind(part) for part in parts}))
    return found


def _kind(part: str) -> str:
    """`post` of the step `post_0123456789ab`, `heads` of a group; else the file."""
    return part if "." in part else part.rstrip("_").rpartition("_")[0] or part.rstrip("_")
