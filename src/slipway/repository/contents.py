"""All steps and ensembles of a repository, before any file is written. Equal input gives equal bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slipway.contract import RepositoryError
from slipway.contract.lane import LaneName
from slipway.lint.models import tensor_bytes
from slipway.repository.classifier import Classifier, Networks
from slipway.repository.config import IMAGE, ModelConfig, to_pbtxt
from slipway.repository.groups import BaseHeads, Heads, heads_of
from slipway.repository.lanes import LANE_RULES
from slipway.repository.multi import multi_config
from slipway.repository.step import VERSION, Content, Files, StepModel
from slipway.repository.taken_over import Present

IMAGE_BYTES = 1 << 20
"""Room for an ordinary photograph, encoded."""
Multi = Mapping[str, Sequence[str]]
"""Classifiers that each ensemble answers for from one decode."""


@dataclass(frozen=True)
class PlannedContents:
    """The intended contents of a repository, except for `lane.json` and the manifest, which `plan` adds."""

    lane: LaneName
    networks: Networks
    bases: Sequence[BaseHeads]
    """The bases again, with the folders of their heads."""
    multi: Multi
    cores: int | None
    """Cores that the `serving` of some was chosen for; None if nothing was left to choose."""
    heads: Heads
    chains: Mapping[str, Sequence[ModelConfig]]
    """The steps of each classifier, in the order of processing."""
    ensembles: Sequence[ModelConfig]
    shm_default_bytes: int
    files: Files
    """Files of the steps and of the ensembles."""


def contents(
    classifiers: Sequence[Classifier],
    bases: Sequence[BaseHeads] = (),
    *,
    lane: LaneName,
    multi: Multi,
    cores: int | None = None,
    present: Present | None = None,
) -> PlannedContents:
    """Steps of every version, both ensembles of each classifier, and the multi ensembles.

    Args:
        cores: of the machine that will serve; by default those that this process may use.
        present: the repository whose groups of heads are taken over where nothing about them changed.

    Raises:
        RepositoryError: the classifiers of a multi ensemble cannot share a decode, or a head cannot be served.
        ManifestError: a head is missing or damaged.
    """
    files: Files = {}
    together = {name for names in multi.values() for name in names}
    given = Networks(classifiers, [own.base for own in bases])
    networks, chosen_for = LANE_RULES[lane].settle(given, sharing=together, cores=cores)
    bases = [replace(own, base=base) for own, base in zip(bases, networks.bases, strict=True)]
    chains = {classifier.name: _chain(classifier, lane, files) for classifier in networks.classifiers}
    heads = heads_of(bases, lane=lane, present=present, apart=together)
    files |= heads.files
    chains |= heads.chains
    classifiers = [*networks.classifiers, *heads.opened]
    ensembles = []
    for classifier in classifiers:
        for kept in classifier.kept:
            _chain(kept, lane, files)
        for config in classifier.ensemble_configs(chains[classifier.name]):
            _add_ensemble(config, files, bundles=classifier.bundle_file, labels=classifier.labels_file)
            ensembles.append(config)
    by_name = {classifier.name: classifier for classifier in classifiers}
    for name, members in multi.items():
        if missing := [member for member in members if member not in by_name]:
            raise RepositoryError(f"{name}: names {', '.join(missing)}, and no classifier has that name")
        group = [by_name[member] for member in members]
        config = multi_config(name, group, [chains[member] for member in members])
        _add_ensemble(config, files, bundles=Content.of("".join(f"{c.name} {c.bundle.id}\n" for c in group).encode()))
        ensembles.append(config)
    return PlannedContents(
        lane=lane,
        networks=networks,
        bases=bases,
        multi=multi,
        cores=chosen_for,
        heads=heads,
        chains=chains,
        ensembles=ensembles,
        shm_default_bytes=_shm_default_bytes(networks, heads, lane),
        files=files,
    )


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
    files[f"{config.name}/config.pbtxt"] = Content.of(to_pbtxt(config).encode())
    if labels is not None and any(output.label_filename for output in config.output):
        files[f"{config.name}/labels.txt"] = labels


def _shm_default_bytes(networks: Networks, heads: Heads, lane: LaneName) -> int:
    """Shared memory that fits every Python-backend step; a group of heads may have many classes."""
    versions = [version for classifier in networks.classifiers for version in classifier.versions]
    steps = [step.config for version in versions for step in LANE_RULES[lane].chain(version)]
    of_heads = [2 * base.max_batch_size * IMAGE_BYTES for base in networks.bases]
    return max((*map(_shm_bytes, (*steps, *heads.base_steps)), *of_heads), default=0)


def _shm_bytes(step: ModelConfig) -> int:
    """Shared memory that an instance of a Python-backend step starts with: two batches, so that one is read while
    another is written (docs/adr/0087).

    It allows a megabyte for an ordinary photograph, and as many photographs as waiting requests are merged into; a
    client that sends more in one request, or larger ones, makes the region grow once, for good.
    """
    known = step.max_batch_size * sum(tensor_bytes(tensor) for tensor in (*step.input, *step.output))
    takes_images = any(tensor.name == IMAGE.name for tensor in step.input)
    merged = max(step.dynamic_batching.preferred_batch_size, default=step.max_batch_size) if takes_images else 0
    return int(-(-2 * (known + merged * IMAGE_BYTES) // IMAGE_BYTES) * IMAGE_BYTES)
