"""All files of a repository, before any is written. Equal input gives equal bytes."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from slipway.contract import Choice, Lane, Manifest, RepositoryError
from slipway.contract.choice import choice_name
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.lane import LaneBase, LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.serving import CpuServing, Serving, is_settled, settle
from slipway.lint.gpu_lane import gpus_of, pool_bytes
from slipway.lint.models import Unchanged, remember, tensor_bytes
from slipway.repository.classifier import Classifier
from slipway.repository.config import ModelConfig, to_pbtxt
from slipway.repository.groups import BaseHeads, Heads, heads_of
from slipway.repository.heads import engine_part
from slipway.repository.lanes import LANE_RULES
from slipway.repository.multi import multi_config
from slipway.repository.step import VERSION, Content, Files, StepModel
from slipway.repository.taken_over import CODE, Present, code_sha256
from slipway.repository.tensors import IMAGE
from slipway.system.files import sha256_bytes, sha256_file

PINNED_POOL_BYTES = 256 << 20
"""Triton's own default."""
IMAGE_BYTES = 1 << 20
"""Room for an ordinary photograph, encoded."""
Multi = Mapping[str, Sequence[str]]
"""Classifiers that each ensemble answers for from one decode."""


@dataclass(frozen=True)
class Contents:
    """The intended contents of a repository."""

    lane: Lane
    files: Files
    unchanged: Unchanged
    """Groups of heads that the present repository has already."""


def contents(
    classifiers: Sequence[Classifier],
    bases: Sequence[BaseHeads] = (),
    *,
    lane: LaneName,
    multi: Multi,
    cores: int | None = None,
    present: Present | None = None,
) -> Contents:
    """Steps of every version, both ensembles of each classifier, the multi ensembles, `lane.json` and the manifest.

    Args:
        cores: of the machine that will serve; by default those that this process may use.
        present: the repository whose groups of heads are taken over where nothing about them changed.

    Raises:
        RepositoryError: the classifiers of a multi ensemble cannot share a decode, or a head cannot be served.
        ManifestError: a head is missing or damaged.
    """
    files: Files = {}
    chosen_for = None
    if lane == "cpu":
        given, cores = classifiers, cores or len(os.sched_getaffinity(0))
        chosen_for = None if all(map(is_settled, _servings(classifiers, bases))) else cores
        classifiers, bases = _settled(given, bases, multi, cores=cores)
    chains = {classifier.name: _chain(classifier, lane, files) for classifier in classifiers}
    heads = heads_of(bases, lane=lane, present=present, apart={name for names in multi.values() for name in names})
    files |= heads.files
    chains |= heads.chains
    classifiers = [*classifiers, *heads.opened]
    for classifier in classifiers:
        for kept in classifier.kept:
            _chain(kept, lane, files)
        labels = Content.file(classifier.bundle, "labels.txt")
        for config in classifier.ensemble_configs(chains[classifier.name]):
            _add_ensemble(config, files, bundles=classifier.bundle_file, labels=labels)
    by_name = {classifier.name: classifier for classifier in classifiers}
    for name, members in multi.items():
        if missing := [member for member in members if member not in by_name]:
            raise RepositoryError(f"{name}: names {', '.join(missing)}, and no classifier has that name")
        group = [by_name[member] for member in members]
        config = multi_config(name, group, [chains[member] for member in members])
        _add_ensemble(config, files, bundles=Content.of("".join(f"{c.name} {c.bundle.id}\n" for c in group).encode()))
    served = [*{config.name: config for chain in chains.values() for config in chain}.values(), *heads.base_steps]
    described = _describe(classifiers, bases, lane, multi, served, cores=chosen_for, heads=heads)
    files[LANE] = Content.of(described.to_json().encode())
    manifest = _manifest(classifiers, heads, lane, files)
    files[MANIFEST] = Content.of(manifest.to_json().encode())
    run = {config.name for chain in chains.values() for config in chain}
    unchanged = replace(heads.unchanged, steps=heads.unchanged.steps - run, manifest=manifest)
    return Contents(described, files, unchanged)


def _servings(classifiers: Sequence[Classifier], bases: Sequence[BaseHeads]) -> list[Serving]:
    return [*(classifier.serving for classifier in classifiers), *(own.base.serving for own in bases)]


def _settled(
    classifiers: Sequence[Classifier], bases: Sequence[BaseHeads], multi: Multi, *, cores: int
) -> tuple[list[Classifier], list[BaseHeads]]:
    """The same classifiers, kept versions and bases, with every choice made that their `serving` leaves to the machine.
    A base counts as one classifier, whatever the number of its heads."""
    served = len(classifiers) + len(bases)

    def settled(version: Classifier, *, shares_decode: bool) -> Classifier:
        settings = settle(version.serving, cores=cores, classifiers=served, shares_decode=shares_decode)
        kept = tuple(settled(one, shares_decode=shares_decode) for one in version.kept)
        return replace(version, settings=settings, kept=kept)

    def of_base(own: BaseHeads) -> BaseHeads:
        settings = settle(own.base.serving, cores=cores, classifiers=served, shares_decode=False)
        fused = settings.model_copy(update={"layout": "fused"})  # one process decodes and computes the embedding
        return replace(own, base=replace(own.base, serving=fused))

    sharing = {member for members in multi.values() for member in members}
    return [settled(one, shares_decode=one.name in sharing) for one in classifiers], [of_base(own) for own in bases]


def _add(step: StepModel, files: Files) -> ModelConfig:
    """The named configuration of a step, whose files are added to `files`."""
    config, step_files = step.named()
    files.update(step_files)
    return config


def _chain(classifier: Classifier, lane: LaneName, files: Files) -> list[ModelConfig]:
    """The named configurations of the classifier's steps, whose files are added to `files`."""
    return [_add(step, files) for step in LANE_RULES[lane].chain(classifier)]


def _add_ensemble(config: ModelConfig, files: Files, *, bundles: Content, labels: Content | None = None) -> None:
    # Triton needs a version folder and git keeps no empty one, so this file names the bundles that answer.
    files[f"{config.name}/{VERSION}/bundle.txt"] = bundles
    text = to_pbtxt(config)
    remember(text, config)
    files[f"{config.name}/config.pbtxt"] = Content.of(text.encode())
    if labels is not None and any(output.label_filename for output in config.output):
        files[f"{config.name}/labels.txt"] = labels


def _describe(
    classifiers: Sequence[Classifier],
    bases: Sequence[BaseHeads],
    lane: LaneName,
    multi: Multi,
    served: Collection[ModelConfig],
    *,
    cores: int | None,
    heads: Heads,
) -> Lane:
    """`heads` has those that are not among `classifiers`, since they were not opened."""
    versions = [version for classifier in classifiers for version in classifier.versions]
    engines = [engine for version in versions if version.base is None for engine in version.engines]
    plans = [engine.settings.plan for engine in engines]
    plans += [engine.settings.plan for own in bases for engine in own.base.engines]
    fallback = {c.name: c.engine.settings.name for c in classifiers if c.base is None and c.falls_back}
    fallback |= {head: own.base.engine.settings.name for own in bases if own.base.falls_back for head in own.runs}
    whole = [classifier for classifier in classifiers if classifier.base is None]
    return Lane(
        lane=lane,
        classifiers={**{c.name: c.bundle.id for c in classifiers}, **heads.bundles},
        kept={c.name: tuple(dict.fromkeys(kept.bundle.id for kept in c.kept)) for c in classifiers if c.kept},
        multi={name: tuple(members) for name, members in multi.items()},
        cores=cores,
        serving={c.name: CpuServing.of(c.serving) for c in whole} if lane == "cpu" else None,
        bases={own.base.name: _lane_base(own, lane, heads.stand_ins) for own in bases},
        shm_default_bytes=max(
            *(_shm_bytes(step.config) for c in whole for v in c.versions for step in LANE_RULES[lane].chain(v)),
            *map(_shm_bytes, heads.base_steps),
            *(2 * own.base.max_batch_size * IMAGE_BYTES for own in bases),  # its heads may have many classes
            0,
        ),
        fallback=fallback or None,
        tensorrt_version_compatible=any(plan.version_compatible for plan in plans if plan),
        release=max((plan.release for plan in plans if plan and plan.release), default=None),
        tensorrt=_only(plan.version for plan in plans if plan and not plan.version_compatible),
        dali=_only(plan.dali for plan in plans if plan),
        nvimgcodec=_only(plan.nvimgcodec for plan in plans if plan),
        **(_memory(served) if lane == "gpu" else {}),
    )


def _lane_base(own: BaseHeads, lane: LaneName, stand_ins: Set[str]) -> LaneBase:
    named: dict[str, Any] = {"id": own.base.base.id, "heads": tuple(own.runs)}
    if lane == "cpu":
        return LaneBase(**named, serving=CpuServing.of(own.base.serving))
    engines = tuple(engine.path.name for engine in own.base.engines)
    return LaneBase(**named, engines=engines, stand_ins=tuple(sorted(stand_ins & own.runs.keys())))


def _shm_bytes(step: ModelConfig) -> int:
    """Shared memory that an instance of a Python-backend step starts with: two batches, so that one is read while
    another is written (docs/adr/0085).

    It allows a megabyte for an ordinary photograph, and as many photographs as waiting requests are merged into; a
    client that sends more in one request, or larger ones, makes the region grow once, for good.
    """
    known = step.max_batch_size * sum(tensor_bytes(tensor) for tensor in (*step.input, *step.output))
    takes_images = any(tensor.name == IMAGE.name for tensor in step.input)
    merged = max(step.dynamic_batching.preferred_batch_size, default=step.max_batch_size) if takes_images else 0
    return int(-(-2 * (known + merged * IMAGE_BYTES) // IMAGE_BYTES) * IMAGE_BYTES)


def _only(versions: Iterable[str | None]) -> str | None:
    """The version that all plans have; the lane's `check` refuses several."""
    return next((version for version in versions if version is not None), None)


def _memory(served: Collection[ModelConfig]) -> dict[str, Any]:
    """What the server of a gpu lane is told of its GPUs' memory, and of which GPUs."""
    pool = pool_bytes(served)
    return {"cuda_pool_bytes": pool, "pinned_pool_bytes": max(pool, PINNED_POOL_BYTES), "gpus": gpus_of(served)}


def _manifest(classifiers: Sequence[Classifier], heads: Heads, lane: LaneName, files: Files) -> Manifest:
    """The manifest. Versions, times and commits are in those of bundles and engines, which it names by hash."""
    whole = [classifier for classifier in classifiers if classifier.base is None]
    inputs = {
        name: sha256
        for classifier in whole
        for number, version in enumerate(classifier.versions)
        for name, sha256 in _inputs(version, f"{classifier.name}/kept{number}" if number else classifier.name)
    }
    manifest = Manifest(
        kind="repository",
        name=lane,
        inputs={**inputs, **heads.inputs, **({CODE: code_sha256()} if heads.inputs else {})},
        outputs={path: content.sha256 for path, content in files.items()},
        measured={
            c.name: {_part(choice): choice.model_dump(mode="json") for choice in c.choices} for c in whole if c.choices
        },
    )
    own_sha256 = sha256_bytes(manifest.to_json().encode())
    return manifest.model_copy(update={"own_sha256": own_sha256})


def _inputs(version: Classifier, prefix: str) -> list[tuple[str, str]]:
    """Hashes of the manifests that a version was made from, and of the choice among its engines."""
    parts = {"bundle": version.bundle.path}
    for engine in version.engines:
        parts[engine_part(engine)] = engine.path
    hashed = [(f"{prefix}/{part}", sha256_file(path / MANIFEST)) for part, path in parts.items()]
    choices = [(f"{prefix}/{_part(choice)}", sha256_bytes(choice.to_json().encode())) for choice in version.choices]
    return [*hashed, *choices]


def _part(choice: Choice) -> str:
    """`choice`, or `choice_sm90` between plans for compute capability 9.0."""
    name = choice_name(None if choice.card is None else choice.card.compute_capability)
    return name.removesuffix(".json").replace("-", "_")
