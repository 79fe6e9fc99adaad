"""The groups of heads of a repository: heads that changed are opened, the others are taken over as they are."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from slipway.contract import Bundle, BundleEngine, Manifest, RepositoryError
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.models import NOTHING_UNCHANGED, Unchanged
from slipway.repository.checks import check, check_base
from slipway.repository.classifier import Classifier
from slipway.repository.config import ModelConfig
from slipway.repository.heads import ServedBase, engine_part, groups, heads_step
from slipway.repository.lanes import LANE_RULES
from slipway.repository.step import Files, StepModel
from slipway.repository.taken_over import Present, Taken
from slipway.system.files import sha256_file
from slipway.system.text import command


@dataclass(frozen=True)
class BaseHeads:
    """A base, and the folders of its heads by their names; the heads are not opened yet."""

    base: ServedBase
    runs: Mapping[str, Path]

    @classmethod
    def named(cls, base: ServedBase, runs: Iterable[Path]) -> Self:
        """Heads by the names that their bundles have.

        Raises:
            SpecError: a folder has no bundle.
            RepositoryError: two of them have one name.
        """
        found: dict[str, Path] = {}
        for run in runs:
            name = Manifest.read(run / "bundle" / MANIFEST).name
            if name in found:
                raise RepositoryError(
                    f"{found[name]} and {run}: heads of one name, {name}; give one of them another name in its spec, "
                    "or name the heads in the fleet file"
                )
            found[name] = run
        return cls(base, found)

    def open(self, name: str) -> Classifier:
        """A head, in the form for the engine that serves the base, or the forms for its plans.

        Raises:
            RepositoryError: it is not a head, or one of another base, or the form is missing; the message names the
                command that makes it.
            ManifestError: the bundle or the form is missing or damaged.
        """
        run, folders = self.runs[name], self._forms(name).values()
        bundle = Bundle.open(run / "bundle")
        check_base(bundle, self.base)
        if missing := next((folder for folder in folders if not folder.is_dir()), None):
            again = command(
                "slipway head", bundle.path / "spec.json", "--base", self.base.base.path.parent, "--out", run
            )
            raise RepositoryError(
                f"{missing}: {self.base.name} is served by this engine, and the head has no form for it; {again}"
            )
        first, *others = (BundleEngine.open(folder, bundle=bundle) for folder in folders)
        return Classifier(bundle, first, tuple(others), settings=self.base.serving, base=self.base, served_as=name)

    def inputs(self, name: str) -> dict[str, str]:
        """sha256 of what a head is made from, by the names that the repository's manifest gives them; empty for a
        missing file."""
        own = {"bundle": self.runs[name] / "bundle" / MANIFEST}
        own |= {part: folder / MANIFEST for part, folder in self._forms(name).items()}
        found = {part: sha256_file(path) if path.is_file() else "" for part, path in own.items()}
        return {f"{name}/{part}": sha256 for part, sha256 in (found | self.base.manifests).items()}

    def _forms(self, name: str) -> dict[str, Path]:
        """The folder of a head's form for each engine of its base."""
        return {engine_part(engine): self.runs[name] / "engines" / engine.path.name for engine in self.base.engines}


@dataclass
class Heads:
    """The parts that heads add to a repository."""

    opened: list[Classifier] = field(default_factory=list)
    """Heads that are new or changed."""
    chains: dict[str, list[ModelConfig]] = field(default_factory=dict)
    """The steps of each opened head: its base's and its group's."""
    files: Files = field(default_factory=dict)
    """Files of all steps, and of the ensembles of the heads that are taken over."""
    base_steps: list[ModelConfig] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    """sha256 of what the heads are made from."""
    checked: set[str] = field(default_factory=set)
    """Heads that are taken over and linted again: one of each group that has lost heads and got none, and on the gpu
    lane one of each base without a change."""
    bundles: dict[str, str] = field(default_factory=dict)
    """Bundle ids of the heads that are taken over."""
    stand_ins: set[str] = field(default_factory=set)
    """Heads that were fitted to the typed graph of a plan, opened or not."""
    unchanged: Unchanged = NOTHING_UNCHANGED
    """The heads that are taken over, and the steps that no other head runs."""


def heads_of(
    bases: Sequence[BaseHeads], *, lane: LaneName, present: Present | None = None, apart: Collection[str] = ()
) -> Heads:
    """The groups of all bases.

    Args:
        present: the repository whose groups are taken over where no head changed.
        apart: heads that other ensembles run too, whose groups are opened in any case.

    Raises:
        RepositoryError: a head cannot be served.
        ManifestError: a head is missing or damaged.
    """
    heads, steps, run = Heads(), set[str](), set[str]()
    with tqdm(desc="opening", unit="head", leave=False, disable=None, delay=1) as bar:
        for own in bases:
            first = [_add(heads, step) for step in LANE_RULES[lane].base_steps(own.base)]
            heads.base_steps += first
            before = len(heads.opened), len(heads.checked)
            same = _add_groups(heads, own, first=first, lane=lane, present=present, apart=apart, bar=bar)
            if same and lane == "gpu" and before == (len(heads.opened), len(heads.checked)):
                _, head = same.popitem()  # the GPUs and their memory are checked for all bases together
                heads.checked.add(head)
            steps |= same.keys()
            unchanged = before == (len(heads.opened), len(heads.checked))
            (steps if unchanged else run).update(step.name for step in first)
    heads.unchanged = Unchanged(frozenset(heads.bundles.keys() - heads.checked), frozenset(steps - run))
    return heads


def _add_groups(
    heads: Heads,
    own: BaseHeads,
    *,
    first: Sequence[ModelConfig],
    lane: LaneName,
    present: Present | None,
    apart: Collection[str],
    bar: "tqdm[Any]",
) -> dict[str, str]:
    """Add the groups of a base; gives the steps of those that are taken over as they are, and one head of each."""
    same, before = dict[str, str](), [step.name for step in first]
    for names in groups(own.runs):
        inputs = {name: own.inputs(name) for name in names}
        heads.inputs |= {part: sha256 for parts in inputs.values() for part, sha256 in parts.items()}
        there = None
        if present and not {*names} & {*apart}:
            there = present.group(inputs, base_steps=before)
        if there is None:
            taken = {
                name: head
                for name in names
                if present and name not in apart
                if (head := present.head(name, inputs[name], base_steps=before))
            }
            _add_group(heads, own, names, taken, first=first, lane=lane, bar=bar)
        else:
            heads.files |= there.files
            heads.bundles |= there.bundles
            heads.stand_ins |= there.stand_ins
            same[there.step] = names[0]
    return same


def _add_group(
    heads: Heads,
    own: BaseHeads,
    names: Sequence[str],
    taken: Mapping[str, Taken],
    *,
    first: Sequence[ModelConfig],
    lane: LaneName,
    bar: "tqdm[Any]",
) -> None:
    """Add a group of which `taken` are taken over, and the others opened."""
    opened = []
    for name in names:
        if name not in taken:
            opened.append(own.open(name))
            bar.update()
    check(opened, lane=lane, decoder=LANE_RULES[lane].DECODER)
    answers = {head.name: head.head_answer for head in opened} | {name: head.answer for name, head in taken.items()}
    step = heads_step(own.base, [answers[name] for name in names], max_batch_size=own.base.max_batch_size)
    second = _add(heads, step)
    heads.opened += opened
    heads.stand_ins |= {head.name for head in opened if head.stood_in}
    heads.stand_ins |= {name for name, head in taken.items() if head.stood_in}
    heads.chains |= {head.name: [*first, second] for head in opened}
    heads.bundles |= {name: head.bundle for name, head in taken.items()}
    heads.checked |= {*names[:1]} if not opened else set()
    for head in taken.values():
        heads.files |= head.over(second.name)


def _add(heads: Heads, step: StepModel) -> ModelConfig:
    """The named configuration of a step, which is added to `heads` with its files."""
    config, files = step.named()
    heads.files |= files
    return config
