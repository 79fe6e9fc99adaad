"""Checks one configuration alone: instances, batching, schedulers, and settings that are refused or ignored."""

import re
from pathlib import Path

from slipway.lint.finding import Finding, Findings
from slipway.lint.models import CPU, ENSEMBLE, GPU, Model, Repository, proto

LONGEST_DELAY_US = 1_000_000
"""Longest delay that a spec allows, in microseconds."""
_METRIC_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_fields(model: Model, repository: Repository) -> Findings:
    """Check the fields of a configuration, except its tensors and its steps."""
    if model.backend == ENSEMBLE:
        yield from _ensemble(model)
    else:
        yield from _instances(model, repository)
        yield from _batching(model, repository)
    yield from _schedulers(model, repository)
    yield from _surroundings(model, repository)


def _ensemble(model: Model) -> Findings:
    config = model.config
    for field in ("instance_group", "optimization", "model_warmup"):
        given = config.HasField(field) if field == "optimization" else bool(getattr(config, field))
        if given:
            remedy = "remove it here, and write it for the steps"
            yield model.finding("ensemble-settings", field, "an ensemble is not a process and has none", remedy)
    if config.default_model_filename:
        reason = "an ensemble loads no file, and Triton would derive a backend from the name"
        yield model.finding("ensemble-settings", "default_model_filename", reason, "remove it")
    if config.model_transaction_policy.decoupled:
        reason = "an ensemble is decoupled if a step is; this field is overwritten"
        yield _no_effect(model, "model_transaction_policy.decoupled", reason)


def _instances(model: Model, repository: Repository) -> Findings:
    ours = repository.lane is not None
    for index, group in enumerate(model.config.instance_group):
        field = f"instance_group[{index}]"
        kind = proto.ModelInstanceGroup.Kind.Name(group.kind)
        if repository.lane is not None and not repository.lane.needs_gpu and group.kind == GPU:
            reason = f"{kind} on the cpu lane, whose server has no GPU"
            yield model.finding("gpu-on-the-cpu-lane", f"{field}.kind", reason, "write KIND_CPU")
        if model.backend == "tensorrt" and group.kind == CPU:
            yield model.finding("plan-on-the-cpu", f"{field}.kind", f"{kind} for a TensorRT plan", "write KIND_GPU")
        if model.backend == "onnxruntime" and ours and group.kind == CPU:
            reason = f"{kind} for the engine of a gpu lane, which would run on the CPU in silence"
            yield model.finding("plan-on-the-cpu", f"{field}.kind", reason, "write KIND_GPU")
        if group.gpus and group.kind in (CPU, proto.ModelInstanceGroup.KIND_MODEL):
            reason = f"GPUs {list(group.gpus)} for {kind}"
            yield model.finding("instance-gpus", f"{field}.gpus", reason, "remove them, or write KIND_GPU")
        if group.count < 0 or (ours and group.count == 0):
            reason = f"{group.count} instances; Triton uses 1 in silence"
            yield model.finding("instance-count", f"{field}.count", reason, "write 1 or more")
        if group.profile and model.backend != "tensorrt":
            reason = f"optimisation profiles are TensorRT's, and this is the {model.backend} backend"
            yield model.finding("instance-profile", f"{field}.profile", reason, "remove it")
        if group.host_policy and ours:
            yield _no_effect(model, f"{field}.host_policy", "the server is started without --host-policy")
        if group.HasField("rate_limiter") and ours:
            yield _no_effect(model, f"{field}.rate_limiter", "the server is started without --rate-limit")
    groups = model.config.instance_group
    if groups and all(group.passive for group in groups):
        reason = "every instance is passive, so none answers, and the first request ends the server"
        yield model.finding("instance-passive", "instance_group[0].passive", reason, "remove it")


def _batching(model: Model, repository: Repository) -> Findings:
    config, batching = model.config, model.config.dynamic_batching
    if config.max_batch_size < 0:
        reason = f"{config.max_batch_size}; 0 means no batches, and more is the largest batch"
        yield model.finding("batch-size", "max_batch_size", reason, "write 0 or more")
        return
    if not config.HasField("dynamic_batching"):
        if repository.lane is not None and not config.HasField("sequence_batching"):
            reason = "missing: requests never share a batch, without any message"
            yield model.finding("batching-missing", "dynamic_batching", reason, "write dynamic_batching { }")
        return
    for index, size in enumerate(batching.preferred_batch_size):
        if not 0 < size <= config.max_batch_size:
            field, reason = f"dynamic_batching.preferred_batch_size[{index}]", f"{size} of 1 to {config.max_batch_size}"
            yield model.finding("batch-preferred", field, reason, "write a size that max_batch_size allows")
    levels = [batching.default_priority_level, *sorted(batching.priority_queue_policy)]
    if batching.priority_levels and any(not 0 < level <= batching.priority_levels for level in levels):
        reason = f"levels {', '.join(map(str, levels))} of 1 to {batching.priority_levels}"
        remedy = "give default_priority_level, and every policy, one of those"
        yield model.finding("priority-levels", "dynamic_batching.default_priority_level", reason, remedy)
    yield from _waiting(model)


def _waiting(model: Model) -> Findings:
    batching = model.config.dynamic_batching
    policy, delay_us = batching.default_queue_policy, batching.max_queue_delay_microseconds
    limit_us = policy.default_timeout_microseconds
    field = "dynamic_batching.max_queue_delay_microseconds"
    if limit_us and delay_us >= limit_us and policy.timeout_action == proto.ModelQueuePolicy.REJECT:
        reason = f"a lone request waits {delay_us} µs for a batch, but is rejected after {limit_us} µs"
        yield model.finding("delay-over-timeout", field, reason, "write less than default_timeout_microseconds")
    elif delay_us > LONGEST_DELAY_US:
        reason = f"a lone request waits {delay_us / 1e6:g} s for a batch"
        yield model.finding("delay-too-long", field, reason, f"write {LONGEST_DELAY_US} or less")
    delays = any(
        each.default_timeout_microseconds and each.timeout_action == proto.ModelQueuePolicy.DELAY
        for each in (policy, *batching.priority_queue_policy.values())
    )
    if batching.preserve_ordering and (delays or batching.priority_levels > 1):
        reason = "with several priority levels, or delayed requests, the order cannot be kept"
        yield model.finding("ordering", "dynamic_batching.preserve_ordering", reason, "remove one of the two")


def _schedulers(model: Model, repository: Repository) -> Findings:
    config = model.config
    if config.response_cache.enable:
        reason = (
            "the response cache of Triton 2.51 leaks memory with every answer, and the servers of Slipway have none"
        )
        yield model.finding("response-cache", "response_cache.enable", reason, "remove it")
    if repository.lane is None or model.backend == ENSEMBLE:
        return
    if config.HasField("sequence_batching"):
        reason = "a sequence needs an id in each request and takes one image at a time; classifiers keep no state"
        yield model.finding("sequence-batching", "sequence_batching", reason, "write dynamic_batching { }")
    if config.model_transaction_policy.decoupled:
        reason = "a decoupled step gives any number of answers, and an ensemble needs one for each request"
        yield model.finding("decoupled", "model_transaction_policy.decoupled", reason, "remove it")


def _surroundings(model: Model, repository: Repository) -> Findings:
    """Check environments, agents, metrics, and fields that the backend ignores."""
    config, ours = model.config, repository.lane is not None
    for tag in sorted(config.metric_tags):
        if not _METRIC_LABEL.fullmatch(tag):
            reason = f"{tag!r} is not a valid label of a metric, and the server ends while it loads"
            yield model.finding("metric-tags", f"metric_tags[{tag!r}]", reason, "use letters, digits and _")
    environment = model.parameter("EXECUTION_ENV_PATH")
    if environment and (ours or not _is_there(model, environment)):
        reason = f"{environment}: missing, or unpacked at each start; steps of Slipway run in the server's python3"
        yield model.finding("execution-environment", "parameters['EXECUTION_ENV_PATH']", reason, "remove it")
    if config.model_repository_agents.agents and ours:
        reason = "neither lane's server is started with repository agents"
        yield model.finding("agents", "model_repository_agents", reason, "remove it")
    if model.backend == "python":
        optimization = config.optimization
        unread = {
            "optimization.cuda": optimization.HasField("cuda"),
            "optimization.execution_accelerators": optimization.HasField("execution_accelerators"),
            "cc_model_filenames": bool(config.cc_model_filenames),
            "model_operations": config.HasField("model_operations"),
        }
        for field in (field for field, given in unread.items() if given):
            yield _no_effect(model, field, "the Python backend does not read it")


def _is_there(model: Model, path: str) -> bool:
    return Path(path.replace("$$TRITON_MODEL_DIRECTORY", str(model.folder))).exists()


def _no_effect(model: Model, field: str, reason: str) -> Finding:
    return model.finding("no-effect", field, reason, "remove it, since it has no effect")
