"""Checks the TensorRT plans of an engine step, and the steps that ONNX Runtime runs without one."""

import re
from collections.abc import Iterator
from pathlib import Path

from slipway.contract import EngineSettings, Lane, PlanSettings, SpecError
from slipway.contract.installed import NAMES, same_version
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.nvidia_releases import OLDEST_DALI, release
from slipway.lint.finding import Finding, Findings
from slipway.lint.layout import leaves
from slipway.lint.models import AGAIN, Model, Repository, listed

SUPPORTED = "compile again in a supported release, and assemble again"
BACKEND = "onnxruntime"
_CACHE = "optimization.execution_accelerators.gpu_execution_accelerator[0]"


def check_plans(model: Model, repository: Repository) -> Findings:
    """Check `cc_model_filenames`, and in repositories of Slipway the `engine_<gpu>.json` beside each plan."""
    for capability, file in sorted(model.config.cc_model_filenames.items()):
        field = f"cc_model_filenames[{capability!r}]"
        if not re.fullmatch(r"[1-9]\d?\.\d", capability):
            reason = f"{capability!r} is not a compute capability such as 9.0, so Triton never uses the plan"
            yield model.finding("plan-capability", field, reason, "write major.minor, such as 9.0")
        elif not leaves(file) and not (model.files / file).is_file():
            where = f"{model.files.name}/{file}"
            yield model.finding("plan-missing", field, f"{file} is not there", AGAIN, file=where)
        elif not leaves(file) and repository.lane is not None:
            yield from _facts(model, capability, model.files / file, repository.lane)


def check_release(lane: Lane) -> Findings:
    """Check that the release that compiled the plans is one that can serve them."""
    try:
        if lane.release is not None:
            release(lane.release)
    except SpecError as error:
        yield Finding("", LANE, "release", str(error), SUPPORTED, "lane-release")
    if lane.dali is not None and _numbers(lane.dali) < _numbers(OLDEST_DALI):
        reason = f"{lane.dali}, and the decode graph needs {OLDEST_DALI} or later"
        yield Finding("", LANE, "dali", reason, SUPPORTED, "lane-release")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def plan_facts(plan: Path) -> Path:
    """The facts of a plan: `engine_sm90.json` beside `model_sm90.plan`."""
    return plan.with_name(plan.name.replace("model", "engine", 1)).with_suffix(".json")


def _facts(model: Model, capability: str, plan: Path, lane: Lane) -> Findings:
    facts = plan_facts(plan)
    where = f"{model.files.name}/{facts.name}"

    def wrong(field: str, reason: str, remedy: str = AGAIN) -> Findings:
        yield model.finding("plan-facts", field, reason, remedy, file=where)

    try:
        settings = EngineSettings.read(facts)
    except SpecError as error:
        yield from wrong("", str(error).removeprefix(f"{facts}: "))
        return
    if settings.target != "tensorrt" or settings.plan is None:
        yield from wrong("target", f"{settings.target}, but Triton only loads plans of TensorRT")
        return
    if settings.plan.compute_capability != capability:
        built = settings.plan.compute_capability
        yield from wrong("plan.compute_capability", f"built for {built}, but config.pbtxt uses it for {capability}")
    least, _, most = settings.plan.batch_sizes
    if not least <= 1 <= model.config.max_batch_size <= most:
        reason = f"batches of {least} to {most}, but config.pbtxt serves 1 to {model.config.max_batch_size}"
        yield from wrong("plan.batch_sizes", reason)
    for field, reason in _left_out(settings.plan):
        yield from wrong(field, reason, "compile the plan again where it is served, and assemble again")
    for field, reason in _other_than_the_lane(settings.plan, lane):
        yield from wrong(field, reason)
    profiles = 2 if settings.plan.single_image_profile else 1
    for profile in (name for group in model.config.instance_group for name in group.profile):
        if not profile.isdecimal() or int(profile) >= profiles:
            reason = f"a plan of {profiles} optimisation profiles, but config.pbtxt names profile {profile!r}"
            yield from wrong("plan.single_image_profile", reason)
    for group in model.config.instance_group if settings.plan.single_image_profile else ():
        if unused := sorted({"0", "1"}.difference(group.profile)):
            named = listed(group.profile) if group.profile else "none"
            reason = f"of its optimisation profiles 0 and 1 config.pbtxt names {named}, so {unused[0]} is never used"
            yield from wrong("plan.single_image_profile", reason)


def _left_out(plan: PlanSettings) -> Iterator[tuple[str, str]]:
    """Yield the fields that every compile job records of a plan and this plan lacks: without them a server cannot be
    compared with the plan."""
    for field, what in {"card": "the GPU that it is for", **NAMES}.items():
        if field != "tensorrt" and getattr(plan, field) is None:
            yield f"plan.{field}", f"missing, so nothing tells whether a server has {what}"


def _other_than_the_lane(plan: PlanSettings, lane: Lane) -> Iterator[tuple[str, str]]:
    """Libraries of the plan that are not those of lane.json, which the server is compared with."""
    tensorrt = None if plan.version_compatible else plan.version
    for field, version in (("tensorrt", tensorrt), ("dali", plan.dali), ("nvimgcodec", plan.nvimgcodec)):
        needed = lane.libraries[field]
        if version is not None and (needed is None or not same_version(field, needed, version)):
            yield f"plan.{field}", f"made with {NAMES[field]} {version}, but lane.json says {needed or 'nothing of it'}"


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
