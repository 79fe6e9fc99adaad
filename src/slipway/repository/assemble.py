"""Bundles and engines to a model repository that Triton loads, whole or not at all."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from slipway.contract import Engine, Lane, Manifest, RepositoryError
from slipway.contract.engine import LANES
from slipway.contract.files import complete_folder, sha256_bytes, sha256_file
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import hashes
from slipway.repository import cpu_lane, gpu_lane
from slipway.repository.classifier import Classifier
from slipway.repository.config import to_pbtxt
from slipway.repository.step import VERSION, write_file

_LANES: dict[LaneName, ModuleType] = {"cpu": cpu_lane, "gpu": gpu_lane}


def assemble(classifiers: Sequence[Classifier], out: Path, *, lane: LaneName = "cpu") -> Lane:
    """Write the lane of `classifiers` to `out`; equal input gives equal bytes.

    Raises:
        RepositoryError: no classifier or two of one name, an engine that is not of this lane, did not pass its gate,
            or has other labels or another decoder; and what the lane's own `check` refuses.
        SpecError: `out` is something else than a repository of ours.
    """
    _check(classifiers, lane)
    with complete_folder(out, marker="lane.json") as staging:
        for classifier in classifiers:
            _add(classifier, staging, lane)
        contents = Lane(
            lane=lane,
            classifiers={c.name: c.bundle.id for c in classifiers},
            shm_default_bytes=max(_LANES[lane].shm_bytes(c) for c in classifiers),
            tensorrt_version_compatible=lane == "gpu" and gpu_lane.version_compatible(classifiers),
        )
        contents.write(staging / "lane.json")
        # Versions, times and commits are in the manifests of bundle and engine, which are named here by hash.
        manifest = Manifest(
            kind="repository",
            name=lane,
            inputs={name: sha256 for c in classifiers for name, sha256 in _inputs(c).items()},
            outputs=hashes(staging),
            measured={c.name: {"choice": c.choice.model_dump(mode="json")} for c in classifiers if c.choice},
        )
        manifest.write(staging / MANIFEST)
    return contents


def _check(classifiers: Sequence[Classifier], lane: LaneName) -> None:
    names = sorted(classifier.name for classifier in classifiers)
    if not names:
        raise RepositoryError("no classifier given; a repository serves at least one")
    if len(set(names)) != len(names):
        raise RepositoryError(f"classifiers {', '.join(names)}: each name may be there once; rename one in its spec")
    for classifier in classifiers:
        for engine in classifier.engines:
            _check_engine(engine, classifier, lane)
        _LANES[lane].check(classifier)
    if lane == "gpu":
        gpu_lane.check_together(classifiers)


def _check_engine(engine: Engine, classifier: Classifier, lane: LaneName) -> None:
    settings = engine.settings
    if LANES[settings.target] is None:
        raise RepositoryError(
            f"{engine.path}: compiled by {settings.target}, which proves without a GPU that a graph compiles; its "
            "plans run on RTX cards alone and Triton loads none of them: compile with --target tensorrt"
        )
    if LANES[settings.target] != lane:
        raise RepositoryError(
            f"{engine.path}: compiled by {settings.target} for the {LANES[settings.target]} lane, and this is the "
            f"{lane} lane; give --lane {LANES[settings.target]}, or an engine of this lane"
        )
    if not engine.may_be_served:
        raise RepositoryError(
            f"{engine.path}: the accuracy gate says {engine.verdict!r}, and only an engine that passed is assembled; "
            "see its evaluation.json"
        )
    if settings.classes != len(classifier.bundle.labels):
        raise RepositoryError(
            f"{classifier.bundle.path}: {len(classifier.bundle.labels)} labels for {settings.classes} logits of "
            f"{engine.path}"
        )
    if settings.decoder != _LANES[lane].DECODER:
        raise RepositoryError(
            f"{engine.path}: its numbers were made with decoder {settings.decoder}, and the {lane} lane decodes with "
            f"{_LANES[lane].DECODER}; compile it again where that decoder is"
        )


def _inputs(classifier: Classifier) -> dict[str, str]:
    """The manifests that a classifier was made from, and the choice among them, by hash."""
    parts = {"bundle": classifier.bundle.path}
    for engine in classifier.engines:
        plan = engine.settings.plan
        capability = None if plan is None else plan.compute_capability
        parts["engine" if capability is None else gpu_lane.engine_name(capability)] = engine.path
    hashed = {f"{classifier.name}/{part}": sha256_file(path / MANIFEST) for part, path in parts.items()}
    if classifier.choice is not None:
        hashed[f"{classifier.name}/choice"] = sha256_bytes(classifier.choice.to_json().encode())
    return hashed


def _add(classifier: Classifier, repository: Path, lane: LaneName) -> None:
    steps = (*_LANES[lane].steps(classifier), classifier.post_step())
    for config in classifier.ensemble_configs([step.write(repository) for step in steps]):
        # Triton wants a version folder and git keeps no empty one: it holds the bundle's id.
        write_file(repository / config.name / VERSION / "bundle.txt", classifier.bundle_file)
        write_file(repository / config.name / "config.pbtxt", to_pbtxt(config).encode())
        if any(output.label_filename for output in config.output):
            shutil.copyfile(classifier.bundle.path / "labels.txt", repository / config.name / "labels.txt")
