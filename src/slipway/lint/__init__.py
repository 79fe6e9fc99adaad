"""Finds faults of a model repository from its files alone: needs no server and no GPU, and runs no code of it.

`assemble` lints its result, and `serve` and the doctor lint their input. `lint` is the entry point; `RULES` describes
the harm of each fault, and the reaction of tritonserver 2.51.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from slipway.lint.chain import check_chain
from slipway.lint.costs import notes
from slipway.lint.dali import check_dali
from slipway.lint.ensembles import check_ensemble, check_queues
from slipway.lint.fields import check_fields
from slipway.lint.finding import Finding
from slipway.lint.gpu_lane import check_gpu_lane
from slipway.lint.heads import check_heads
from slipway.lint.interface import check_interface, check_labels
from slipway.lint.layout import check_layout
from slipway.lint.manifest import read_hashes, read_lane
from slipway.lint.models import ENSEMBLE, NOTHING_UNCHANGED, Model, Repository, Unchanged, read_models
from slipway.lint.plans import check_plans, check_release
from slipway.lint.python_steps import check_python_step
from slipway.lint.rule_table import RULES
from slipway.lint.tensors import check_tensors

__all__ = ["RULES", "Finding", "lint", "notes"]


def lint(repository: Path, *, unchanged: Unchanged = NOTHING_UNCHANGED) -> list[Finding]:
    """All faults of a repository, in the order of its files; empty for a good one. `unchanged` parts are not read.

    A repository with neither `lane.json` nor `manifest.json` was not assembled by Slipway, and is not checked for them.
    """
    try:
        models = read_models(repository, but=unchanged.folders)
    except OSError as error:
        return [_no_repository(f"{repository} cannot be listed: {error.strerror}")]
    if not models and not unchanged.folders:
        return [_no_repository(f"{repository} has no folder, so it has no model")]
    hashes, about_files = read_hashes(repository, known=unchanged.known, written=unchanged.manifest)
    if any(finding.rule == "repository-empty" for finding in about_files):
        return about_files
    lane, about_lane = read_lane(repository)
    if lane is not None and unchanged.classifiers:
        lane = lane.without(unchanged.classifiers)
    found = [*about_lane, *about_files]
    for part in _parts(Repository(models, lane, unchanged.classifiers), hashes):
        try:
            found += part
        except OSError as error:  # it ends this part only
            found.append(_unreadable(repository, error))
    return sorted(dict.fromkeys(found), key=lambda finding: (finding.file, finding.field))


def _no_repository(reason: str) -> Finding:
    return Finding("", ".", "", reason, "give the folder that has one folder per model", "repository-empty")


def _unreadable(repository: Path, error: OSError) -> Finding:
    path = Path(str(error.filename))
    file = path.relative_to(repository).as_posix() if path.is_relative_to(repository) else str(path)
    model, inside, _ = file.partition("/")
    reason = f"cannot be read: {error.strerror}"
    return Finding(model if inside else "", file, "", reason, "let the server's user read it", "unreadable")


def _parts(repository: Repository, hashes: Mapping[str, str]) -> Iterator[Iterator[Finding]]:
    for model in repository.models.values():
        yield _model(model, repository)
    yield check_queues(repository)
    if repository.lane is not None:
        yield check_release(repository.lane)
        yield check_interface(repository)
        yield check_heads(repository)
        yield check_chain(repository.lane, repository.models, hashes)
        if repository.lane.needs_gpu:
            yield check_gpu_lane(repository, repository.lane)


def _model(model: Model, repository: Repository) -> Iterator[Finding]:
    if model.problem is not None:
        yield model.problem
        return
    yield from check_layout(model, repository)
    if model.backend:
        yield from check_fields(model, repository)
        yield from check_tensors(model, repository)
        yield from check_labels(model)
        yield from _contents(model, repository)


def _contents(model: Model, repository: Repository) -> Iterator[Finding]:
    if model.backend == ENSEMBLE:
        yield from check_ensemble(model, repository.models)
    elif not model.versions:
        return
    elif model.backend == "python":
        yield from check_python_step(model, repository)
    elif model.backend == "dali":
        yield from check_dali(model)
    elif model.backend == "tensorrt":
        yield from check_plans(model, repository)
