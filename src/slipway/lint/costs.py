"""Notes on the decisions of a repository and their costs, which are not faults."""

import json
from collections.abc import Iterator
from pathlib import Path

from slipway.contract import EngineSettings, Lane, Manifest, ManifestError, SpecError
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint.manifest import read_lane
from slipway.lint.models import Model, read_models
from slipway.lint.plans import plan_facts


def notes(repository: Path) -> list[str]:
    """The classifiers that no TensorRT plan serves, and settings of a gpu lane that cost speed or isolation."""
    lane, _ = read_lane(repository)
    if lane is None:
        return []
    return [*lane.notes, *(_costs(repository, lane) if lane.needs_gpu else ())]


def _costs(repository: Path, lane: Lane) -> Iterator[str]:
    for model in read_models(repository).values():
        if model.problem is None and model.versions:
            yield from (f"{model.name}: {cost}" for cost in (*_decoder(model), *_engine(model)))
    yield from _not_measured(repository, lane)


def _decoder(model: Model) -> Iterator[str]:
    native = model.backend == "dali"
    if native:
        yield (
            "an image that the guard lets through and DALI refuses fails every request of its batch, and the decoder "
            "is then built anew (serving.gpu.decode: native)"
        )
    if _hardware_jpeg(model.files / "pipeline.json") if native else model.parameter("hardware_jpeg") == "true":
        yield (
            "the GPU's hardware JPEG decoder reports success for a damaged image, whose pixels may be those of another "
            "(serving.gpu.hardware_jpeg)"
        )


def _hardware_jpeg(pipeline: Path) -> bool:
    try:
        return json.loads(pipeline.read_text(encoding="utf-8"))["hardware_jpeg"] is True
    except (OSError, ValueError, LookupError, TypeError):  # a finding of the chain
        return False


def _engine(model: Model) -> Iterator[str]:
    if model.backend != "tensorrt":
        return
    if not model.config.optimization.cuda.graphs:
        yield "without CUDA graphs the CPU launches each kernel of a batch (serving.gpu.cuda_graphs: false)"
    for file in model.config.cc_model_filenames.values():
        try:
            plan = EngineSettings.read(plan_facts(model.files / file)).plan
        except SpecError:  # a finding of the plans
            continue
        if plan is not None and not plan.single_image_profile and plan.batch_sizes[2] > 1:
            largest = plan.batch_sizes[2]
            yield f"{file} is tuned for batches of {largest} alone, and single images are slower (compile it again)"


def _not_measured(repository: Path, lane: Lane) -> Iterator[str]:
    """Classifiers whose plans were named by hand, which a base's never are."""
    try:
        measured = Manifest.read(repository / MANIFEST).measured
    except (SpecError, ManifestError):  # a finding of the manifest
        return
    heads = {head for base in lane.bases.values() for head in base.heads}
    for name in sorted(lane.classifiers.keys() - heads - (lane.fallback or {}).keys() - measured.keys()):
        yield f"{name}: its plans were taken by name, not as the fastest that were measured (slipway choose)"
