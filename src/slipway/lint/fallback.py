"""Checks the steps of a gpu lane that Triton's ONNX Runtime backend runs, since there is no TensorRT plan."""

from pathlib import Path

from slipway.contract import EngineSettings, Lane, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.lint.finding import Finding, Findings
from slipway.lint.manifest import read_lane
from slipway.lint.models import AGAIN, Model, Repository

BACKEND = "onnxruntime"
_CACHE = "optimization.execution_accelerators.gpu_execution_accelerator[0]"


def check_fallback(repository: Repository, lane: Lane) -> Findings:
    """Check that lane.json names the classifiers without a plan, and that no cached engine is another network's."""
    said = lane.fallback or {}
    for name in lane.classifiers:
        models = (repository.models[step] for step in repository.ensembles.get(name, ()) if step in repository.models)
        falls_back = any(model.backend == BACKEND for model in models)
        if falls_back and name not in said:
            reason = f"does not name {name}, which the ONNX Runtime backend serves instead of a TensorRT plan"
            yield Finding("", LANE, "fallback", reason, AGAIN, "fallback-unsaid")
        if name in said and not falls_back:
            reason = f"says that {said[name]} serves {name}, and no step of it has the {BACKEND} backend"
            yield Finding("", LANE, "fallback", reason, AGAIN, "fallback-unsaid")
    for model in repository.models.values():
        if model.backend == BACKEND and model.versions:
            yield from _cache(model)


def notes(repository: Path) -> list[str]:
    """What is not a fault of a repository, and should be known: the classifiers that no TensorRT plan serves."""
    lane, _ = read_lane(repository)
    return [] if lane is None else lane.notes


def _cache(model: Model) -> Findings:
    """ONNX Runtime names cached engines by the nodes of a graph: without a prefix, two networks share one."""
    try:
        graph = EngineSettings.read(model.files / "engine.json").graph_sha256
    except SpecError:  # a finding of the chain
        return
    for provider in model.config.optimization.execution_accelerators.gpu_execution_accelerator:
        cached = provider.parameters.get("trt_engine_cache_enable", "") in ("1", "true")
        prefix = provider.parameters.get("trt_engine_cache_prefix", "")
        if cached and graph not in prefix:
            reason = f"trt_engine_cache_prefix {prefix!r} does not name the graph, {graph:.12}…"
            yield model.finding("engine-cache", _CACHE, reason, AGAIN)
