"""Finds the GPUs of this machine, and checks whether a step's plans fit them and the installed TensorRT."""

import os
import subprocess
from collections.abc import Iterator, Sequence

from slipway.contract import EngineSettings, Lane, PlanSettings, SpecError
from slipway.contract.card import Card, cards
from slipway.contract.nvidia_releases import RELEASES, release, release_of
from slipway.lint.models import Model
from slipway.lint.plans import plan_facts
from slipway.serving.doctor.checks import Check
from slipway.system.process import output_of

ON_GPU = "compile it there (slipway compile --target tensorrt), choose (slipway choose), and assemble again"
IN_RELEASE = "compile it in the release that serves it, or with tensorrt.version_compatible, and assemble again"
_AMPERE = (8, 0)


def find_gpus() -> tuple[tuple[Card, ...], str]:
    """The GPUs that CUDA shows to this process; if there are none, also the reason, in the words of `nvidia-smi`."""
    found = cards()
    if found:
        return found, ""
    try:
        done = output_of(["nvidia-smi", "--list-gpus"], timeout_s=30)
    except FileNotFoundError:
        return (), "no nvidia-smi on PATH, so no NVIDIA driver"
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi: {error}"
    said = (done.stdout + done.stderr).strip().partition("\n")[0] or "lists no GPU"
    hidden = ", but CUDA shows this process none (CUDA_VISIBLE_DEVICES?)" if said.startswith("GPU ") else ""
    return (), f"nvidia-smi: {said}{hidden}"


def driver_problem(gpus: Sequence[Card], lane: Lane | None) -> str:
    """Return the reason why the driver is too old for the release that compiled the lane, or for this image's if
    nothing was compiled; empty if it is not."""
    here = release_of(os.environ) if lane is not None and lane.needs_gpu else None
    try:
        named = lane.release if lane is not None else None
        wanted = release(named) if named is not None else next((r for r in RELEASES if r.name == here), None)
    except SpecError as error:
        return str(error)
    return "" if wanted is None else wanted.driver_problem(gpus)


def check_plans(model: Model, gpus: Sequence[Card], *, installed: str | None, lane: Lane | None) -> Iterator[Check]:
    """Check every plan against every GPU and the `installed` TensorRT. The lint has checked the recorded facts."""
    plans: dict[str, PlanSettings] = {}
    for file in model.config.cc_model_filenames.values():
        try:
            plan = EngineSettings.read(plan_facts(model.files / file)).plan
        except SpecError:  # a finding of the lint
            continue
        plans |= {file: plan} if plan is not None else {}
    told = lane is not None and lane.tensorrt_version_compatible
    named = {number for group in model.config.instance_group for number in group.gpus}
    problems = [(_unfit(model, plans, gpu), ON_GPU) for index, gpu in enumerate(gpus) if not named or index in named]
    if gpus and (absent := sorted(number for number in named if number >= len(gpus))):
        reason = f"an instance is to run on GPU {', '.join(map(str, absent))}, and this machine shows {len(gpus)}"
        problems.append((reason, "correct serving.gpu.gpus, and assemble again"))
    problems += [(_version_unfit(file, plan, installed, told=told), IN_RELEASE) for file, plan in plans.items()]
    problems = [(reason, remedy) for reason, remedy in problems if reason]
    for reason, remedy in problems:
        yield Check("step", model.name, "fail", reason, remedy)
    built = (f"{name} by TensorRT {plan.version} for {plan.compute_capability}" for name, plan in plans.items())
    what = f"{', '.join(built)}; " if plans else ""
    missing = [*(["a GPU"] if not gpus else []), *(["TensorRT"] if installed is None else [])]
    if missing:
        yield Check("step", model.name, "untold", f"{what}cannot be checked without {' and '.join(missing)}")
    elif not problems:
        yield Check("step", model.name, "ok", f"{what}fits TensorRT {installed} and every GPU of this machine")


def _unfit(model: Model, plans: dict[str, PlanSettings], gpu: Card) -> str:
    """The reason why the plan that Triton would choose does not run on `gpu`; empty if it does."""
    file = model.config.cc_model_filenames.get(gpu.compute_capability, "")
    if file:
        return _other_card(file, plans[file], gpu) if file in plans else ""
    default = model.config.default_model_filename
    plan = plans.get(default)
    if plan is None:
        there = ", ".join(sorted(model.config.cc_model_filenames))
        return f"no plan for {gpu.name} (compute capability {gpu.compute_capability}), only for {there}"
    if plan.hardware_compatibility != "ampere_plus" or _numbers(gpu.compute_capability) < _AMPERE:
        return (
            f"{default} would be taken for {gpu.name} (compute capability {gpu.compute_capability}); it was built for "
            f"{plan.compute_capability} with hardware compatibility {plan.hardware_compatibility}"
        )
    return ""


def _other_card(file: str, plan: PlanSettings, gpu: Card) -> str:
    """The reason why a plan of the right compute capability is of another card than `gpu`; empty if it is not.

    TensorRT loads such a plan and warns. Its kernels were timed on the other card, it may want memory that this one
    has not, and its gate and its speed were measured there. `hardware_compatibility` says that this is wanted.
    """
    built = plan.card
    if plan.hardware_compatibility != "none" or (built is not None and built.same_model(gpu)):
        return ""
    if built is None:
        return f"{file} does not say on which GPU it was built, and this machine has {gpu}"
    return f"{file} was built and measured on {built}, and this machine has {gpu}"


def _version_unfit(file: str, plan: PlanSettings, installed: str | None, *, told: bool) -> str:
    if installed is None or _numbers(plan.version)[:3] == _numbers(installed)[:3]:
        return ""
    if not plan.version_compatible:
        return f"{file} was built by TensorRT {plan.version} for that version only, and {installed} is installed"
    if _numbers(plan.version)[:1] != _numbers(installed)[:1] or _numbers(plan.version)[:3] > _numbers(installed):
        return (
            f"{file} is for TensorRT {plan.version} and later ones of that major version, and {installed} is installed"
        )
    if not told:
        return f"{file} is version-compatible, but lane.json does not turn that option of the server on"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
