"""Checks the machine for the needs of a repository: server, interpreter, shared memory, processors, ports, GPUs."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from slipway.contract import Lane, ServingError
from slipway.contract.card import Card
from slipway.contract.installed import NAMES, Installed, differences
from slipway.lint.models import GPU, Model
from slipway.serving.binary import TritonBinary, find_tritonserver
from slipway.serving.doctor.checks import Check, State
from slipway.serving.doctor.gpu import driver_problem, find_gpus
from slipway.serving.doctor.rehearsal import Answer, Package, RehearsalJob
from slipway.serving.ports import HOST, Ports

DEFAULT_BACKENDS = Path("/opt/tritonserver/backends")
"""Folder of the backends of a tritonserver that is on PATH."""
SHARED_MEMORY = Path("/dev/shm")
REHEARSAL = Path(__file__).with_name("rehearsal.py")
IN_CONTAINER = "serve it in NVIDIA's container (slipway container serve)"
IMPORT_TIMEOUT_S = 120.0
NO_SERVER = TritonBinary(Path(), "none was found", backend_directory=None, library_path="")


@dataclass(frozen=True)
class Rehearsal:
    """The result of a job that ran in a process of its own."""

    answer: Answer
    problem: str
    """The error; empty if there was none."""
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Peak memory of the process, in MB."""


@dataclass(frozen=True)
class Interpreter:
    """The interpreter that the server's stub or its DALI backend takes its packages from."""

    path: Path
    environment: Mapping[str, str]
    isolated: bool
    """Whether it ignores PYTHONPATH and the user's own packages, as the stub of the nvidia-pytriton wheel does. That of
    NVIDIA's images reads PYTHONPATH, where their DALI is; their DALI backend calls `python3` and does so too."""

    def run(self, job: RehearsalJob, *, timeout_s: float) -> Rehearsal:
        """Run one job of `rehearsal.py`. Nothing is written beside the step."""
        flag = "-I" if self.isolated and job["backend"] != "dali" else "-P"
        try:
            done = subprocess.run(
                [str(self.path), flag, "-B", str(REHEARSAL)],
                input=json.dumps(job).encode(),
                capture_output=True,
                env=dict(self.environment),
                timeout=timeout_s,
                check=False,
            )
        except OSError as error:
            return Rehearsal({}, f"{self.path} does not start: {error.strerror}")
        except subprocess.TimeoutExpired:
            return Rehearsal({}, f"not done after {timeout_s:g} s")
        if done.returncode != 0 or not done.stdout:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            return Rehearsal({}, f"the process ended with exit code {done.returncode}{last and ': '}{last}")
        answer: Answer = json.loads(done.stdout)
        return Rehearsal(answer, _first_line(answer.get("error", "")), answer["seconds"], answer["peak_mb"])


def _first_line(text: str) -> str:
    """The first lines of a message, without the stack trace that a library may have added."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]


@dataclass(frozen=True)
class Host:
    """The parts of this machine that the steps are tried with."""

    tritonserver: TritonBinary | None
    interpreter: Interpreter
    packages: Mapping[str, Package]
    """Importable module to its version; for `openvino` also the capabilities of the processor."""
    gpus: tuple[Card, ...]
    checks: tuple[Check, ...]

    @property
    def backends(self) -> Path:
        if self.tritonserver is None or self.tritonserver.backend_directory is None:
            return DEFAULT_BACKENDS
        return self.tritonserver.backend_directory


def look(lane: Lane | None, models: Iterable[Model], workspace: Path) -> Host:
    """Examine this machine; `workspace` is an empty folder for the server's backends."""
    models = list(models)
    tritonserver, found = _tritonserver(workspace)
    environment = (tritonserver or NO_SERVER).environment()
    python3 = shutil.which("python3", path=environment["PATH"])
    from_wheel = bool(tritonserver and tritonserver.from_wheel)
    interpreter = Interpreter(Path(python3 or sys.executable), environment, isolated=from_wheel)
    packages, about_python = _python3(interpreter, models, from_wheel=from_wheel)
    gpus, about_gpus = _gpus(lane)
    checks = (
        found,
        about_python,
        *([_shared_memory(lane, models, gpus=len(gpus) or 1)] if lane is not None else []),
        _processors(models, lane, gpus=len(gpus) or 1),
        _ports(),
        about_gpus,
        *_decoder(lane, models),
    )
    return Host(tritonserver, interpreter, packages, gpus, checks)


def backend_problem(machine: Host, model: Model) -> str | None:
    """The reason why the server on this machine has no backend for the model; None if it has one."""
    if (machine.backends / model.backend).is_dir():
        return None
    if machine.tritonserver is not None and machine.tritonserver.from_wheel:
        release = metadata.version("nvidia-pytriton")
        return f"the tritonserver of nvidia-pytriton {release} has no {model.backend} backend, only the Python backend"
    return f"no {model.backend} backend in {machine.backends}"


def check_memory(peak_mb: Mapping[str, float], models: Mapping[str, Model], *, gpus: int = 1) -> Check:
    """Compare the memory of the tried steps, times their instances, with the free memory."""
    needed_mb = sum(peak * models[name].instances(gpus=gpus) for name, peak in peak_mb.items())
    free_mb = _free_mb()
    what = f"all instances of the steps that started need about {needed_mb:.0f} MB; {free_mb:.0f} MB are free"
    if needed_mb > free_mb:
        return _finding(
            "memory", "untold", f"{what}: it may not fit", f"lower {_settings(models.values())[0]} in the spec"
        )
    return _finding("memory", "ok" if peak_mb else "untold", what)


def _tritonserver(workspace: Path) -> tuple[TritonBinary | None, Check]:
    try:
        binary = find_tritonserver(workspace)
    except ServingError as error:
        return None, _finding("tritonserver", "fail", str(error))
    try:
        binary.every_option()
    except ServingError as error:
        return binary, _finding("tritonserver", "fail", str(error), "install it again")
    return binary, _finding("tritonserver", "ok", f"{binary.path}, {binary.reason}")


def _python3(
    interpreter: Interpreter, models: Iterable[Model], *, from_wheel: bool
) -> tuple[Mapping[str, Package], Check]:
    needed = sorted({"numpy"}.union(*(imported_modules(model) for model in models)))
    tried = interpreter.run({"backend": "packages", "modules": needed}, timeout_s=IMPORT_TIMEOUT_S)
    if tried.problem:
        return {}, _finding("python3", "fail", tried.problem, "put a python3 that starts first on PATH")
    python, packages = tried.answer["python"], tried.answer["packages"]
    what = f"{interpreter.path}, Python {python}"
    absent = {name: package["error"] for name, package in packages.items() if "error" in package}
    if absent:
        reasons = "; ".join(f"{name}: {error}" for name, error in absent.items())
        extras = "serve,gpu" if any(name.startswith("nvidia.dali") for name in absent) else "serve"
        return packages, _finding(
            "python3", "fail", f"{what}, cannot import {reasons}", f"pip install 'slipway[{extras}]'"
        )
    given = {name: package["version"] for name, package in packages.items()}
    known = {name: version.partition("-")[0] for name, version in given.items() if version}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if from_wheel and python != ours:
        reason = f"{what}, but the server's stub is for Python {ours}"
        return packages, _finding("python3", "fail", reason, f"put a python3 of version {ours} first on PATH")
    if from_wheel and int(known["numpy"].partition(".")[0]) >= 2:
        reason = f"{what}, {versions}: the wheel's Python backend misreads every BYTES tensor with numpy 2"
        return packages, _finding("python3", "fail", reason, "pip install 'numpy<2'")
    return packages, _finding("python3", "ok", f"{what}, {versions}")


def imported_modules(model: Model) -> set[str]:
    """The modules outside the standard library that a step imports, read without running it.

    A step on a CPU has the files that use DALI too, and does not import them.
    """
    if model.version is None or model.backend not in ("python", "dali"):
        return set()
    on_gpu = model.backend == "dali" or any(group.kind == GPU for group in model.config.instance_group)
    unused = () if on_gpu else tuple(model.files.glob("dali_*.py"))
    names: set[str] = set()
    for path in model.files.glob("*.py"):
        if path in unused:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # reported when the step is tried
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module)
    beside = {path.stem for path in model.files.glob("*.py")} | {"triton_python_backend_utils"}
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names | beside}


def _shared_memory(lane: Lane, models: Iterable[Model], *, gpus: int) -> Check:
    instances = sum(model.instances(gpus=gpus) for model in models if model.backend == "python")
    needed_mb = instances * lane.shm_default_bytes / 1e6
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return _finding(
            "shared memory", "fail", f"{SHARED_MEMORY} cannot be read: {error.strerror}", "mount a tmpfs there"
        )
    what = (
        f"{instances} instances of the Python backend start with {lane.shm_default_bytes / 1e6:.0f} MB each, together "
        f"{needed_mb:.0f} MB; {SHARED_MEMORY} has {usage.free / 1e6:.0f} of {usage.total / 1e6:.0f} MB free"
    )
    if needed_mb * 1e6 > usage.free:
        remedy = f"make it larger (in a container: --shm-size={2 * needed_mb:.0f}m), or remove files in it"
        return _finding("shared memory", "fail", what, remedy)
    return _finding("shared memory", "ok", what)


def _processors(models: Iterable[Model], lane: Lane | None, *, gpus: int) -> Check:
    here = len(os.sched_getaffinity(0))
    if lane is not None and lane.cores not in {None, here}:
        return _finding(
            "processors",
            "untold",
            f"{here} processors, and the number of processes was chosen for {lane.cores}",
            f"assemble with --cores {here}, or latency suffers",
        )
    models = list(models)
    threads = {model.name: model.instances(gpus=gpus) * _threads(model) for model in models}
    greedy = [f"{name} with {count}" for name, count in threads.items() if count > here]
    if greedy:
        reason = f"{here} processors, and these steps have more threads in their instances: {', '.join(greedy)}"
        remedy = f"lower {' or '.join(_settings(models))}, or latency suffers"
        return _finding("processors", "untold", reason, remedy)
    return _finding("processors", "ok", f"{here} processors, and no step has more threads in its instances")


def _settings(models: Iterable[Model]) -> tuple[str, str]:
    """The settings of a spec that say how many instances and threads these steps have."""
    on_gpu = any(group.kind == GPU for model in models for group in model.config.instance_group)
    if on_gpu:
        return "serving.gpu.decode_instances or serving.gpu.engine_instances", "serving.gpu.decode_threads"
    return "serving.instances", "serving.threads"


def _threads(model: Model) -> int:
    written = model.parameter("threads") or model.parameter("num_threads")
    return int(written) if written.isdecimal() else 1


def _ports() -> Check:
    taken = [f"{port} ({name})" for name, port in vars(Ports()).items() if not _is_free(port)]
    if taken:
        reason = f"{', '.join(taken)} on {HOST} in use; other ports can be chosen at the start"
        return _finding("ports", "untold", reason, "--http-port, --grpc-port, --metrics-port")
    return _finding("ports", "ok", f"{', '.join(str(port) for port in vars(Ports()).values())} on {HOST} are free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _gpus(lane: Lane | None) -> tuple[tuple[Card, ...], Check]:
    gpus, reason = find_gpus()
    if gpus:
        if too_old := driver_problem(gpus, lane):
            remedy = "bring the driver up to date, or compile and serve in an older release"
            return gpus, _finding("GPU", "fail", too_old, remedy)
        return gpus, _finding("GPU", "ok", ", ".join(f"{gpu}, driver {gpu.driver}" for gpu in gpus))
    if lane is not None and lane.needs_gpu:
        what = f"this repository has the gpu lane, and this machine has no usable GPU: {reason}"
        return (), _finding("GPU", "fail", what, "serve it on a machine with an NVIDIA GPU, or assemble the cpu lane")
    return (), _finding("GPU", "untold", f"not needed ({reason})")


def _decoder(lane: Lane | None, models: Iterable[Model]) -> list[Check]:
    """Checks on the decoder that the plans of a gpu lane were evaluated with; their own TensorRT is another check."""
    if lane is None or not lane.needs_gpu or not any(model.backend == "tensorrt" for model in models):
        return []
    needed = {"dali": lane.dali, "nvimgcodec": lane.nvimgcodec}
    if unsaid := [NAMES[field] for field, version in needed.items() if version is None]:
        reason = f"lane.json does not say with which {' and '.join(unsaid)} the plans were evaluated"
        return [
            _finding("decoder", "fail", reason, "compile the plans again where they are served, and assemble again")
        ]
    where = f"release {lane.release}" if lane.release else "the release that compiled it"
    remedy = f"serve it in {where} (slipway container serve), or compile it again in the one that serves"
    found = [_finding("decoder", "fail", reason, remedy) for reason in differences(needed, Installed.here())]
    return found or [_finding("decoder", "ok", "the versions that the plans were evaluated with")]


def _free_mb() -> float:
    """Available memory in MB: the kernel's figure, or the limit of the control group if that is lower."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free_mb = int(meminfo["MemAvailable"].split()[0]) / 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return free_mb
    return free_mb if limit == "max" else min(free_mb, int(limit) / 2**20)


def _finding(subject: str, state: State, reason: str, remedy: str = "") -> Check:
    return Check("machine", subject, state, reason, remedy)
