"""Finds TensorRT, collects its messages, and finds the GPU that it runs on."""

import functools
import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from slipway.contract import CompileError, MissingDependencyError
from slipway.contract.card import Card, cards
from slipway.contract.installed import Installed, differences
from slipway.contract.nvidia_releases import release

PlanTarget = Literal["tensorrt", "tensorrt_rtx"]
# The wheels of TensorRT-RTX hold the bindings; the package of the plain name only imports them.
_MODULES: dict[PlanTarget, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_SUPPORTED: dict[PlanTarget, tuple[tuple[int, int], tuple[int, int], str]] = {
    "tensorrt": ((10, 12), (12, 0), "10.12 to 11.x"),
    "tensorrt_rtx": ((1, 7), (2, 0), "1.7 to 1.x"),
}
_NO_DRIVER = "cudaError 35"  # follows every error of a build without a GPU, and is not its cause
_PARSER_PLACE = "ModelImporter.cpp:"  # the parser's position, which its own errors also give, with the reason


def import_library(target: PlanTarget) -> Any:
    """The module of `target`, in a supported version.

    Raises:
        CompileError: `tensorrt` is not installed, or the version is not supported.
        MissingDependencyError: TensorRT-RTX is not installed.
    """
    reasons = []
    for name in _MODULES[target]:
        try:
            trt = importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
            continue
        first, end, words = _SUPPORTED[target]
        version = library_version(trt)
        if not first <= tuple(map(int, version.split(".")))[:2] < end:
            raise CompileError(f"{target} {version} is installed, but only {words} is supported; install one of those")
        return trt
    if target == "tensorrt_rtx":
        raise MissingDependencyError("tensorrt_rtx", extra="build")
    raise CompileError(
        f"tensorrt cannot be imported ({reasons[0]}); compile in NVIDIA's container, whose TensorRT matches the "
        "Triton release that serves the plan (slipway container compile), or: pip install tensorrt"
    )


def library_version(trt: Any) -> str:
    """The numeric part of the version, such as `10.13.3.9`."""
    numbers = re.match(r"\d+([.]\d+)+", trt.__version__)
    assert numbers is not None
    return numbers[0]


def compute_capability() -> str | None:
    """Compute capability of the first GPU visible to CUDA, such as `9.0`; None without a driver or a GPU."""
    return next((card.compute_capability for card in cards()), None)


def require_card(what: str) -> Card:
    """The first GPU visible to CUDA, which `what` needs.

    Raises:
        CompileError: this machine has no GPU.
    """
    found = cards()
    if not found:
        raise CompileError(
            f"{what} needs an NVIDIA GPU and its driver, and this machine shows none (libcuda.so.1); run it where the "
            "plan will be served. The target tensorrt_rtx proves without a GPU that a graph compiles"
        )
    return found[0]


def require_release_of_server() -> None:
    """Compare what compiles and evaluates here with the server of the release that this image is of, if it is of one.

    Raises:
        SpecError: the release is not supported.
        CompileError: its server has another TensorRT, which loads no plan of this one, or another decoder, so that the
            plan's accuracy would be that of other pixels; or the driver is too old for it.
    """
    here = Installed.here()
    if here.release is None:
        return
    server = release(here.release)
    needed = {"tensorrt": server.tensorrt, "dali": server.dali, "nvimgcodec": server.nvimgcodec}
    compiler = replace(here, tensorrt=library_version(import_library("tensorrt")))
    for difference in differences(needed, compiler):
        raise CompileError(
            f"{difference}, but the server of {server.name} has what is needed: install that version here, or compile "
            "in our image of the release (slipway container compile)"
        )
    if too_old := server.driver_problem(cards()):
        raise CompileError(f"{too_old}; bring the driver up to date, or compile and serve in an older release")


def fresh_log(trt: Any) -> Any:
    """The `trt.ILogger` of this process, emptied: it keeps `errors`, in order, and counts `warnings`.

    There is only one, since TensorRT keeps writing to the first one while any object made with it lives.
    """
    log = _log(trt)
    log.errors.clear()
    log.warnings = 0
    return log


@functools.cache
def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings = 0

        def log(self, severity: Any, message: str) -> None:
            kind = trt.ILogger.Severity
            if severity in (kind.ERROR, kind.INTERNAL_ERROR):
                self.errors.append(message)
            self.warnings += severity == kind.WARNING

    return Log()


def start(make: Callable[[Any], Any], log: Any) -> Any:
    """A `trt.Builder` or `trt.Runtime` that writes to `log`.

    Raises:
        CompileError: TensorRT does not start here, for example because the driver is too old.
    """
    try:
        return make(log)
    except (TypeError, RuntimeError) as error:  # TypeError: the factory returned nothing
        raise CompileError(
            f"TensorRT does not start on this machine; update its driver, or use an older TensorRT: {error}"
            f"{explain(log.errors)}"
        ) from error


def explain(errors: Iterable[str]) -> str:
    """The distinct informative lines of TensorRT's errors, indented for the end of a message."""
    said = (error for error in errors if not error.startswith(_PARSER_PLACE))
    lines = dict.fromkeys(line.strip() for error in said for line in error.splitlines())
    without_gpu = compute_capability() is None
    return "".join(f"\n  {line}" for line in lines if line and not (without_gpu and _NO_DRIVER in line))
