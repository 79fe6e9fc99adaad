"""Would Triton's TensorRT backend load a step's plans on these GPUs?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.contract import EngineSettings, Lane, PlanSettings, SpecError
from slipway.lint.models import Model
from slipway.serving.doctor.findings import Finding
from slipway.serving.doctor.gpu import Gpu

ON_GPU = "compile it there (build/compile.py --target tensorrt), and assemble again"
IN_RELEASE = "compile it in the release that serves it, or with tensorrt.version_compatible, and assemble again"
_AMPERE = (8, 0)


def check_plans(model: Model, gpus: Sequence[Gpu], *, installed: str | None, lane: Lane | None) -> Iterator[Finding]:
    """Every plan against what is written of it, then against every GPU and the TensorRT that is `installed`."""
    plans: dict[str, PlanSettings] = {}
    problems: list[tuple[str, str]] = []
    for capability, file in sorted(model.config.cc_model_filenames.items()):
        try:
            plans[file] = _settings_of(model, file, capability)
        except SpecError as error:
            problems.append((str(error), "assemble the repository again (build/assemble.py)"))
    told = lane is not None and lane.tensorrt_version_compatible
    problems += [(_unfit(model, plans, gpu), ON_GPU) for gpu in gpus]
    problems += [(_version_unfit(file, plan, installed, told=told), IN_RELEASE) for file, plan in plans.items()]
    problems = [(reason, remedy) for reason, remedy in problems if reason]
    for reason, remedy in problems:
        yield Finding("step", model.name, "fail", reason, remedy)
    built = (f"{name} by TensorRT {plan.version} for {plan.compute_capability}" for name, plan in plans.items())
    what = f"{', '.join(built)}; " if plans else ""
    missing = [*(["a GPU"] if not gpus else []), *(["TensorRT"] if installed is None else [])]
    if missing:
        yield Finding("step", model.name, "untold", f"{what}whether it loads needs {' and '.join(missing)} to tell")
    elif not problems:
        yield Finding("step", model.name, "ok", f"{what}TensorRT {installed} and every GPU of this machine fit")


def plan_facts(plan: Path) -> Path:
    """`engine_sm90.json` beside `model_sm90.plan`."""
    return plan.with_name(plan.name.replace("model", "engine", 1)).with_suffix(".json")


def _settings_of(model: Model, file: str, capability: str) -> PlanSettings:
    """Raises SpecError: nothing, or something else, is written of this plan."""
    facts = plan_facts(model.files / file)
    settings = EngineSettings.read(facts)
    plan = settings.plan
    if settings.target != "tensorrt" or plan is None:
        raise SpecError(f"{facts.name} is of target {settings.target}, and Triton loads plans of TensorRT alone")
    if plan.compute_capability != capability:
        raise SpecError(f"{file} stands for compute capability {capability} and was built on {plan.compute_capability}")
    least, _, most = plan.batch_sizes
    if not least <= 1 <= model.config.max_batch_size <= most:
        raise SpecError(f"{file} takes batches of {least} to {most}, and 1 to {model.config.max_batch_size} are served")
    return plan


def _unfit(model: Model, plans: dict[str, PlanSettings], gpu: Gpu) -> str:
    """Why the plan that Triton would take for `gpu` does not run there; empty where it does."""
    file = model.config.cc_model_filenames.get(gpu.compute_capability, "")
    if file:
        return ""
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


def _version_unfit(file: str, plan: PlanSettings, installed: str | None, *, told: bool) -> str:
    if installed is None or _numbers(plan.version)[:3] == _numbers(installed)[:3]:
        return ""
    if not plan.version_compatible:
        return f"{file} was built by TensorRT {plan.version} for that version alone, and {installed} is here"
    if _numbers(plan.version)[:1] != _numbers(installed)[:1] or _numbers(plan.version)[:3] > _numbers(installed):
        return f"{file} is for TensorRT {plan.version} and later ones of that major version, and {installed} is here"
    if not told:
        return f"{file} is version-compatible, and lane.json does not say that the server must be told so"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
