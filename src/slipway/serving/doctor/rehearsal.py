"""Loads one step as the server will, in a process of its own, and asks it once. Needs neither slipway nor a server.

It is run as a file, by the `python3` that serves. A JSON object on standard input names the step, and one on standard
output has the result. For Triton's Python backend, a small stand-in replaces the module that only its stub has.
"""

import base64
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
from typing import Any, TypedDict

TensorType = tuple[str, list[int]]
"""The numpy name of a tensor's type, and its dimensions without the batch. JSON makes a list of both."""


class RehearsalJob(TypedDict, total=False):
    """A job on standard input. `packages` has modules; both kinds of step have a folder and a version."""

    backend: str
    """`python`, `dali` or `packages`."""
    modules: list[str]
    folder: str
    version: str
    build: bool
    """Whether `dali.py` is serialised, which takes a GPU."""
    name: str
    config: str
    """`config.pbtxt` as JSON."""
    inputs: dict[str, TensorType]
    outputs: list[str]
    image: str
    """A good image in base64."""
    gpu: bool


class Package(TypedDict, total=False):
    """A module that was imported, or the `error` of one that cannot be."""

    version: str | None
    error: str
    capabilities: list[str]
    """What OpenVINO says of the processor."""


class Answer(TypedDict, total=False):
    """The result on standard output."""

    outputs: dict[str, TensorType]
    """The tensors that a step of the Python backend gave."""
    python: str
    packages: dict[str, Package]
    error: str
    """Absent if there was none."""
    seconds: float
    peak_mb: float
    """Peak memory of the process, in MB."""


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> "Tensor":
        """Make a tensor from one of DALI's, which are what our steps give."""
        import numpy as np

        return Tensor(name, np.asarray(tensor.as_cpu() if hasattr(tensor, "as_cpu") else tensor))


class TritonError:
    def __init__(self, message: str) -> None:
        self._message = message

    def message(self) -> str:
        return self._message


class TritonModelException(Exception):
    pass


class Logger:
    @staticmethod
    def log_error(message: str) -> None:
        print(message, file=sys.stderr)


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: Any = None) -> None:
        self.tensors, self.error = output_tensors, error


class Request:
    def __init__(self, inputs: dict[str, Tensor], outputs: list[str]) -> None:
        self.inputs, self.outputs = inputs, outputs

    def requested_output_names(self) -> list[str]:
        return self.outputs


def get_input_tensor_by_name(request: Request, name: str) -> Any:
    return request.inputs.get(name)


def rehearse_python(job: RehearsalJob) -> Answer:
    """Initialise `TritonPythonModel` of `<version>/model.py` with its configuration, and send one image."""
    import numpy as np

    stand_in = types.ModuleType("triton_python_backend_utils")
    names = (Tensor, TritonError, TritonModelException, Logger, InferenceResponse, get_input_tensor_by_name)
    for part in names:
        setattr(stand_in, part.__name__, part)
    sys.modules[stand_in.__name__] = stand_in
    sys.path.insert(0, job["folder"])
    model = importlib.import_module(f"{job['version']}.model").TritonPythonModel()
    if hasattr(model, "initialize"):
        model.initialize(
            {
                "model_config": job["config"],
                "model_name": job["name"],
                "model_version": job["version"],
                "model_repository": job["folder"],
                "model_instance_name": "rehearsal_0",
                "model_instance_kind": "GPU" if job["gpu"] else "CPU",
                "model_instance_device_id": "0",
            }
        )
    inputs = {}
    for name, (dtype, dims) in job["inputs"].items():
        array = np.zeros((1, *(max(dim, 1) for dim in dims)), np.dtype(dtype))
        if array.dtype == np.object_:
            array[:] = base64.b64decode(job["image"])
        inputs[name] = Tensor(name, array)
    (response,) = model.execute([Request(inputs, job["outputs"])])
    if response.error is not None:
        raise RuntimeError(f"one image: {response.error.message()}")
    outputs: dict[str, TensorType] = {}
    for tensor in response.tensors:
        array = tensor.as_numpy()
        outputs[tensor.name()] = array.dtype.name, list(array.shape[1:])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{tensor.name()} is not finite")
        if tensor.name() in ("image_status", "STATUS") and array.any():
            raise ValueError(f"{tensor.name()} {array.ravel().tolist()} for a good image")
    return {"outputs": outputs}


def rehearse_dali(job: RehearsalJob) -> Answer:
    """Import `dali.py` of NVIDIA's DALI backend by its path, and serialise it if there is a GPU."""
    path = os.path.join(job["folder"], job["version"], "dali.py")
    spec = importlib.util.spec_from_file_location("dali_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if job["build"]:
        from nvidia.dali._utils.autoserialize import invoke_autoserialize

        with tempfile.TemporaryDirectory() as folder:
            invoke_autoserialize(module, os.path.join(folder, "model.dali"))
    return {}


def import_packages(job: RehearsalJob) -> Answer:
    """The version of every module of `job["modules"]`, or the reason why it cannot be imported."""
    packages: dict[str, Package] = {}
    for name in job["modules"]:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # whatever a broken package raises
            packages[name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        packages[name] = {"version": getattr(module, "__version__", None)}
        if name == "openvino":
            packages[name]["capabilities"] = module.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "packages": packages}


def peak_mb() -> float:
    """Peak memory of this process, in MB. (`ru_maxrss` would start with that of the parent.)"""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


JOBS = {"python": rehearse_python, "dali": rehearse_dali, "packages": import_packages}


def main() -> None:
    job: RehearsalJob = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of libraries apart
    started = time.monotonic()
    answer: Answer = {}
    try:
        answer = JOBS[job["backend"]](job)
    except BaseException as error:  # a step may also call sys.exit
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = time.monotonic() - started
    answer["peak_mb"] = peak_mb()
    output.write(json.dumps(answer))
    output.flush()
    os._exit(0)  # even if the step left threads running


if __name__ == "__main__":
    main()
