"""All files of a repository, before any is written. Equal input gives equal bytes."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slipway.contract import Choice, Lane, Manifest, RepositoryError
from slipway.contract.choice import choice_name
from slipway.contract.cpu_serving import CpuServing, is_settled, settle
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.lane import LaneBase, LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.gpu_lane import gpus_of, pool_bytes
from slipway.lint.models import remember
from slipway.repository.classifier import Classifier, engine_part
from slipway.repository.config import ModelConfig, to_pbtxt
from slipway.repository.heads import groups, heads_step
from slipway.repository.lanes import LANE_RULES
from slipway.repository.multi import multi_config
from slipway.repository.step import VERSION, Content, Files, StepModel
from slipway.system.files import sha256_bytes, sha256_file

PINNED_POOL_BYTES = 256 << 20
"""Triton's own default."""
Multi = Mapping[str, Sequence[str]]
"""Classifiers that each ensemble answers for from one decode."""


@dataclass(frozen=True)
class Contents:
    """The intended contents of a repository."""

    lane: Lane
    files: Files


def contents(classifiers: Sequence[Classifier], *, lane: LaneName, multi: Multi, cores: int | None = None) -> Contents:
    """Steps of every version, both ensembles of each classifier, the multi ensembles, `lane.json` and the manifest.

    Args:
        cores: of the machine that will serve; by default those that this process may use.

    Raises:
        RepositoryError: the classifiers of a multi ensemble cannot share a decode.
    """
    files: Files = {}
    chosen_for = None
    if lane == "cpu":
        given, cores = classifiers, cores or len(os.sched_getaffinity(0))
        classifiers = _settled(given, multi, cores=cores)
        chosen_for = None if all(is_settled(c.serving) for c in given) else cores
    chains = {classifier.name: _chain(classifier, lane, files) for classifier in classifiers if not classifier.base}
    chains |= _heads_chains([classifier for classifier in classifiers if classifier.base], lane, files)
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
    served = {config.name: config for chain in chains.values() for config in chain}
    described = _describe(classifiers, lane, multi, served.values(), cores=chosen_for)
    files[LANE] = Content.of(described.to_json().encode())
    files[MANIFEST] = _manifest(classifiers, lane, files)
    return Contents(described, files)


def _settled(classifiers: Sequence[Classifier], multi: Multi, *, cores: int) -> list[Classifier]:
    """The same classifiers and kept versions, with every choice made that their `serving` leaves to the machine. A base
    counts as one classifier, whatever the number of its heads."""
    served = len({classifier.base.name if classifier.base else (classifier.name,) for classifier in classifiers})

    def settled(version: Classifier, *, shares_decode: bool) -> Classifier:
        settings = settle(version.serving, cores=cores, classifiers=served, shares_decode=shares_decode)
        if version.base is not None:  # one process decodes and computes the embedding
            settings = settings.model_copy(update={"layout": "fused"})
            return replace(version, settings=settings, base=replace(version.base, serving=settings))
        kept = tuple(settled(one, shares_decode=shares_decode) for one in version.kept)
        return replace(version, settings=settings, kept=kept)

    sharing = {member for members in multi.values() for member in members}
    return [settled(classifier, shares_decode=classifier.name in sharing) for classifier in classifiers]


def _heads_chains(heads: Sequence[Classifier], lane: LaneName, files: Files) -> dict[str, list[ModelConfig]]:
    """The steps of each head, its base's and its group's, whose files are added to `files`."""
    of_base: dict[str, list[Classifier]] = {}
    for head in heads:
        assert head.base is not None
        of_base.setdefault(head.base.name, []).append(head)
    chains: dict[str, list[ModelConfig]] = {}
    for own in of_base.values():
        base, max_batch_size = own[0].base, own[0].max_batch_size
        assert base is not None
        first = [_add(step, files) for step in LANE_RULES[lane].base_steps(base)]
        for group in groups([head.head_answer for head in own]):
            second = _add(heads_step(base, group, max_batch_size=max_batch_size), files)
            chains |= {head.name: [*first, second] for head in group}
    return chains


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
    lane: LaneName,
    multi: Multi,
    served: Collection[ModelConfig],
    *,
    cores: int | None,
) -> Lane:
    versions = [version for classifier in classifiers for version in classifier.versions]
    plans = [engine.settings.plan for version in versions for engine in version.engines]
    return Lane(
        lane=lane,
        classifiers={c.name: c.bundle.id for c in classifiers},
        kept={c.name: tuple(dict.fromkeys(kept.bundle.id for kept in c.kept)) for c in classifiers if c.kept},
        multi={name: tuple(members) for name, members in multi.items()},
        cores=cores,
        serving={c.name: CpuServing.of(c.serving) for c in classifiers if not c.base} if lane == "cpu" else None,
        bases=_bases(classifiers, lane),
        shm_default_bytes=max(LANE_RULES[lane].shm_bytes(version) for version in versions),
        fallback={c.name: c.engine.settings.name for c in classifiers if c.falls_back} or None,
        tensorrt_version_compatible=any(plan.version_compatible for plan in plans if plan),
        release=max((plan.release for plan in plans if plan and plan.release), default=None),
        tensorrt=_only(plan.version for plan in plans if plan and not plan.version_compatible),
        dali=_only(plan.dali for plan in plans if plan),
        nvimgcodec=_only(plan.nvimgcodec for plan in plans if plan),
        **(_memory(served) if lane == "gpu" else {}),
    )


def _bases(classifiers: Sequence[Classifier], lane: LaneName) -> dict[str, LaneBase]:
    found: dict[str, list[Classifier]] = {}
    for classifier in classifiers:
        if classifier.base is not None:
            found.setdefault(classifier.base.name, []).append(classifier)
    return {
        name: LaneBase(
            id=heads[0].base.base.id,  # type: ignore[union-attr]
            heads=tuple(head.name for head in heads),
            **(
                {"serving": CpuServing.of(heads[0].serving)}
                if lane == "cpu"
                else {
                    "engines": tuple(engine.path.name for engine in heads[0].base.engines),  # type: ignore[union-attr]
                    "stand_ins": sum(head.stood_in for head in heads),
                }
            ),
        )
        for name, heads in found.items()
    }


def _only(versions: Iterable[str | None]) -> str | None:
    """The version that all plans have; the lane's `check` refuses several."""
    return next((version for version in versions if version is not None), None)


def _memory(served: Collection[ModelConfig]) -> dict[str, Any]:
    """What the server of a gpu lane is told of its GPUs' memory, and of which GPUs."""
    pool = pool_bytes(served)
    return {"cuda_pool_bytes": pool, "pinned_pool_bytes": max(pool, PINNED_POOL_BYTES), "gpus": gpus_of(served)}


def _manifest(classifiers: Sequence[Classifier], lane: LaneName, files: Files) -> Content:
    """The manifest. Versions, times and commits are in those of bundles and engines, which it names by hash."""
    manifest = Manifest(
        kind="repository",
        name=lane,
        inputs={
            name: sha256
            for classifier in classifiers
            for number, version in enumerate(classifier.versions)
            for name, sha256 in _inputs(version, f"{classifier.name}/kept{number}" if number else classifier.name)
        },
        outputs={path: content.sha256 for path, content in files.items()},
        measured={
            c.name: {_part(choice): choice.model_dump(mode="json") for choice in c.choices}
            for c in classifiers
            if c.choices
        },
    )
    own_sha256 = sha256_bytes(manifest.to_json().encode())
    return Content.of(manifest.model_copy(update={"own_sha256": own_sha256}).to_json().encode())


def _inputs(version: Classifier, prefix: str) -> list[tuple[str, str]]:
    """Hashes of the manifests that a version was made from, and of the choice among its engines."""
    parts = {"bundle": version.bundle.path}
    for engine in version.engines:
        parts[engine_part(engine)] = engine.path
    hashed = [(f"{prefix}/{part}", sha256_file(path / MANIFEST)) for part, path in parts.items()]
    if version.base is not None:
        hashed += [
            (f"{prefix}/base", sha256_file(version.base.base.path / MANIFEST)),
            *((f"{prefix}/base_{engine_part(e)}", sha256_file(e.path / MANIFEST)) for e in version.base.engines),
        ]
    choices = [(f"{prefix}/{_part(choice)}", sha256_bytes(choice.to_json().encode())) for choice in version.choices]
    return [*hashed, *choices]


def _part(choice: Choice) -> str:
    """`choice`, or `choice_sm90` between plans for compute capability 9.0."""
    name = choice_name(None if choice.card is None else choice.card.compute_capability)
    return name.removesuffix(".json").replace("-", "_")
