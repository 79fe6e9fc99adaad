"""Finds the GPUs and the TensorRT of this machine, and checks whether a step's plans fit both."""

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slipway.contract import EngineSettings, Lane, PlanSettings, SpecError
from slipway.lint.models import Model
from slipway.lint.plans import plan_facts
from slipway.serving.doctor.findings import Finding

QUERY = ("name", "compute_cap", "driver_version")
LIBRARIES = tuple(f"libnvinfer.so.{major}" for major in (12, 11, 10))
ON_GPU = "compile it there (slipway compile --target tensorrt), and assemble again"
IN_RELEASE = "compile it in the release that serves it, or with tensorrt.version_compatible, and assemble again"
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.compute_capability}, driver {self.driver}"


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that `nvidia-smi` lists; if there are none, also the reason."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return (), "no nvidia-smi on PATH, so no NVIDIA driver"
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi: {error}"
    gpus = tuple(_parse(done.stdout))
    if done.returncode != 0 or not gpus:
        return (), f"nvidia-smi: {(done.stdout + done.stderr).strip().partition(chr(10))[0] or 'lists no GPU'}"
    return gpus, ""


def _parse(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(QUERY):
            yield Gpu(*fields)


def tensorrt_version() -> str | None:
    """Version of the TensorRT library that the loader finds, such as `10.13.3`; None if there is none."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        number = int(library.getInferLibVersion())
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def check_plans(model: Model, gpus: Sequence[Gpu], *, installed: str | None, lane: Lane | None) -> Iterator[Finding]:
    """Check every plan against every GPU and the `installed` TensorRT. The lint has checked the recorded facts."""
    plans: dict[str, PlanSettings] = {}
    for file in model.config.cc_model_filenames.values():
        try:
            plan = EngineSettings.read(plan_facts(model.files / file)).plan
        except SpecError:  # a finding of the lint
            continue
        plans |= {file: plan} if plan is not None else {}
    told = lane is not None and lane.tensorrt_version_compatible
    problems = [(_unfit(model, plans, gpu), ON_GPU) for gpu in gpus]
    problems += [(_version_unfit(file, plan, installed, told=told), IN_RELEASE) for file, plan in plans.items()]
    problems = [(reason, remedy) for reason, remedy in problems if reason]
    for reason, remedy in problems:
        yield Finding("step", model.name, "fail", reason, remedy)
    built = (f"{name} by TensorRT {plan.version} for {plan.compute_capability}" for name, plan in plans.items())
    what = f"{', '.join(built)}; " if plans else ""
    missing = [*(["a GPU"] if not gpus else []), *(["TensorRT"] if installed is None else [])]
    if missing:
        yield Finding("step", model.name, "untold", f"{what}cannot be checked without {' and '.join(missing)}")
    elif not problems:
        yield Finding("step", model.name, "ok", f"{what}fits TensorRT {installed} and every GPU of this machine")


def _unfit(model: Model, plans: dict[str, PlanSettings], gpu: Gpu) -> str:
    """The reason why the plan that Triton would choose does not run on `gpu`; empty if it does."""
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
