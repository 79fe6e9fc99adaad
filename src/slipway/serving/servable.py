"""Checks before a server is started that it can serve a lane: its backends, GPUs and libraries."""

import importlib.util
from pathlib import Path

from slipway.contract import Lane, ServingError
from slipway.contract.installed import Installed, differences
from slipway.serving.binary import TritonBinary
from slipway.serving.contents import Contents
from slipway.serving.doctor.gpu import check_plans, driver_problem, find_gpus
from slipway.system.text import command


def check_servable(contents: Contents, binary: TritonBinary) -> None:
    """Compare the needs of the steps of `contents` with `binary` and this machine.

    Raises:
        ServingError: the lane needs a backend, a GPU or OpenVINO, and there is none; the driver is too old; or a plan
            is for another GPU.
    """
    problem = _missing(contents, binary)
    if problem:
        image = command("slipway container", "serve", contents.origin, "--run")
        raise ServingError(
            f"{contents.origin}: a {contents.lane.lane} lane, and {problem}; serve it in its own image: {image}"
        )
    if contents.lane.needs_gpu:
        gpus, reason = find_gpus()
        if not gpus:
            raise ServingError(
                f"{contents.origin}: a gpu lane, and this machine shows no GPU ({reason}); give the container one "
                "(docker run --gpus all, with NVIDIA's container toolkit), or assemble the cpu lane"
            )
        too_old = driver_problem(gpus, contents.lane)
        if too_old:
            raise ServingError(
                f"{contents.origin}: {too_old}; bring the driver up to date, or compile and serve in an older one"
            )
        engines = (contents.models[step] for step in contents.needed() if contents.models[step].backend == "tensorrt")
        for engine in engines:
            for finding in check_plans(engine, gpus, installed=None, lane=contents.lane):
                if finding.state == "fail":
                    raise ServingError(f"{contents.origin}: {engine.name}: {finding.reason}; {finding.remedy}")


def _missing(contents: Contents, binary: TritonBinary) -> str:
    """The software that the lane needs and is not installed; empty if all of it is."""
    if binary.from_wheel:
        wheel = "the server of the nvidia-pytriton wheel has neither TensorRT nor NVIDIA's DALI backend"
        return wheel if contents.lane.needs_gpu else ""
    folder = binary.backend_directory
    backends = {contents.models[step].backend for step in contents.needed()}
    absent = sorted(name for name in backends if folder is not None and not (folder / name).is_dir())
    if absent:
        return f"{folder} has no backend {', '.join(absent)}"
    if not contents.lane.needs_gpu and importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed here, as in the image of the gpu lane"
    return ""


def check_libraries(origin: Path, lane: Lane) -> None:
    """Compare TensorRT, DALI and nvImageCodec of the lane at `origin` with those that are installed.

    Raises:
        ServingError: one differs. A plan of another TensorRT does not load, and with another decoder the served pixels
            are not those that the plan was evaluated with.
    """
    broken = list(differences(lane.libraries, Installed.here())) if lane.needs_gpu else []
    if broken:
        release = () if lane.release is None else ("--release", lane.release)
        raise ServingError(
            f"{origin}: {'; '.join(broken)}; serve it in the release that compiled it ("
            f"{command('slipway container', 'serve', origin, *release, '--run')}), or compile it again in this one"
        )
