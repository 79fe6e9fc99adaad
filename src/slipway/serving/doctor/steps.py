"""Checks whether a step would load and answer, by the interpreter that would serve it, in a process of its own."""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import json_format
from tritonclient.utils import triton_to_np_dtype

from slipway.contract import Lane
from slipway.contract.installed import tensorrt_version
from slipway.contract.lane import NO_PLAN
from slipway.lint.models import AGAIN, GPU, Model, type_name
from slipway.serving.doctor.checks import Check
from slipway.serving.doctor.gpu import check_plans
from slipway.serving.doctor.machine import IN_CONTAINER, Host, Rehearsal, backend_problem
from slipway.serving.doctor.rehearsal import RehearsalJob, TensorType
from slipway.steps.guard import PLACEHOLDER


@dataclass(frozen=True)
class StepChecks:
    """The checks on one step."""

    checks: tuple[Check, ...]
    peak_mb: float | None = None
    """Peak memory in MB; None if the step was not started."""


def check_step(
    model: Model, machine: Host, *, lane: Lane | None, timeout_s: float, without: Collection[str] = ()
) -> StepChecks:
    """Check the backend of a step that passed the lint, and try the step. This runs its code, which must be trusted.

    Args:
        without: heads that a group is not asked for, since they are broken and the server leaves them out.
    """
    problem = backend_problem(machine, model)
    found = () if problem is None else (Check("step", model.name, "fail", problem, IN_CONTAINER),)
    if model.backend == "python":
        outputs = [tensor for tensor in model.config.output if tensor.name.rpartition(".")[0] not in without]
        more = _try_python(model, outputs, machine, timeout_s=timeout_s)
    elif model.backend == "dali":
        more = _try_dali(model, machine, timeout_s=timeout_s)
    elif model.backend == "onnxruntime":
        more = _one(model, "untold", f"a fallback: {NO_PLAN}; only that backend can try it")
    else:
        more = StepChecks(tuple(check_plans(model, machine.gpus, installed=tensorrt_version(), lane=lane)))
    return StepChecks((*found, *more.checks), more.peak_mb)


def _try_python(model: Model, outputs: Sequence[Any], machine: Host, *, timeout_s: float) -> StepChecks:
    arithmetic = model.parameter("arithmetic")
    capabilities = machine.packages.get("openvino", {}).get("capabilities", ["BF16"])
    if arithmetic == "bf16" and "BF16" not in capabilities:
        reason = f"computes in BF16, which this processor lacks ({', '.join(capabilities)})"
        return _one(model, "fail", reason, "assemble it with an FP32 or INT8 engine (slipway choose on this machine)")
    job: RehearsalJob = {
        **_job(model),
        "name": model.config.name,
        "config": json_format.MessageToJson(model.config, preserving_proto_field_name=True),
        "inputs": {tensor.name: (_dtype(tensor), list(tensor.dims)) for tensor in model.config.input},
        "outputs": [tensor.name for tensor in outputs],
        "image": base64.b64encode(PLACEHOLDER).decode(),
        "gpu": bool(machine.gpus) and any(group.kind == GPU for group in model.config.instance_group),
    }
    tried = machine.interpreter.run(job, timeout_s=timeout_s)
    problem = tried.problem or _wrong_outputs(outputs, tried.answer["outputs"])
    if problem:
        return _one(model, "fail", problem, AGAIN, tried)
    took = f"{tried.seconds:.1f} s and {tried.peak_mb:.0f} MB"
    return _one(model, "ok", f"loads, and answers an image, in {took}", "", tried)


def _try_dali(model: Model, machine: Host, *, timeout_s: float) -> StepChecks:
    tried = machine.interpreter.run({**_job(model), "build": bool(machine.gpus)}, timeout_s=timeout_s)
    if tried.problem:
        return _one(model, "fail", f"dali.py: {tried.problem}", AGAIN, tried)
    if not machine.gpus:
        return _one(model, "untold", "dali.py can be imported; its pipeline can only be built on a GPU")
    return _one(model, "ok", f"dali.py is serialised in {tried.seconds:.1f} s", "", tried)


def _job(model: Model) -> RehearsalJob:
    return {"backend": model.backend, "folder": str(model.folder.resolve()), "version": model.version or ""}


def _dtype(tensor: Any) -> str:
    """The numpy name of a tensor's type."""
    name = type_name(tensor).removeprefix("TYPE_").replace("STRING", "BYTES")
    return str(np.dtype(triton_to_np_dtype(name)).name)


def _wrong_outputs(outputs: Sequence[Any], given: Mapping[str, TensorType]) -> str:
    """Return a phrase on how the answer differs from the outputs of config.pbtxt; empty if it does not."""
    for tensor in outputs:
        if tensor.name not in given:
            return f"does not give {tensor.name}, which config.pbtxt declares"
        dtype, dims = given[tensor.name]
        expected = list(tensor.dims)
        fits = len(dims) == len(expected) and all(want in (-1, got) for want, got in zip(expected, dims, strict=True))
        if dtype != _dtype(tensor) or not fits:
            return f"gives {tensor.name} as {dtype} {dims}, and config.pbtxt says {_dtype(tensor)} {expected}"
    return ""


def _one(model: Model, state: Any, reason: str, remedy: str = "", tried: Rehearsal | None = None) -> StepChecks:
    return StepChecks((Check("step", model.name, state, reason, remedy),), None if tried is None else tried.peak_mb)
