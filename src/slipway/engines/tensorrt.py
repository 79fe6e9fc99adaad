"""Compiles a typed ONNX graph to a plan, by TensorRT or, as proof without a GPU, by TensorRT-RTX."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slipway.contract import CompileError, PlanSettings, Preprocess
from slipway.contract.engine import Target
from slipway.contract.installed import Installed
from slipway.contract.spec import TensorRT
from slipway.engines.child import run_in_child
from slipway.engines.graph import served_graph
from slipway.engines.plan import PlanLayer, inspect
from slipway.engines.tensorrt_library import (
    PlanTarget,
    compute_capability,
    explain,
    fresh_log,
    import_library,
    library_version,
    require_card,
    start,
)
from slipway.onnx_graph import SERVED_INPUT

__all__ = ["BuiltPlan", "PlanTarget", "build_plan", "compute_capability"]


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine and the facts of its build. Equal graphs do not give equal bytes."""

    data: bytes
    settings: PlanSettings
    timing_cache: bytes | None
    """Timing cache for the next build with the same TensorRT and GPU; None for TensorRT-RTX, which times nothing."""
    layers: list[PlanLayer] | None
    """Layers as the engine inspector describes them; None if no GPU could read the plan back."""
    layers_reason: str
    """Reason why `layers` is None; otherwise empty."""
    warnings: int
    """Number of warnings in TensorRT's log of the build."""
    seconds: float
    """Build time, from the ONNX file to the plan."""


def build_plan(
    graph: Path,
    *,
    preprocess: Preprocess,
    target: PlanTarget,
    max_batch_size: int,
    options: TensorRT,
    timing_cache: bytes | None = None,
) -> BuiltPlan:
    """Compile `graph`, behind its normalisation, for batches of 1 to `max_batch_size`, in the types of its tensors.

    A plan of `tensorrt` gets two optimisation profiles: one for all batches, and one for single images, whose kernels
    would otherwise be those of the larger batch.

    This runs in its own process: TensorRT-RTX 1.7 crashed in one that had run much else before.

    `tensorrt` compiles for the GPU of this machine. `tensorrt_rtx` needs none and compiles for RTX GPUs only; it
    has no hardware or version compatibility, so these options are recorded as not applied. A timing cache of another
    TensorRT or GPU is ignored.

    Raises:
        CompileError: the library or GPU is missing; the file is not an ONNX graph of ours; or TensorRT rejects it,
            with all errors of its parser, each with its node, and those of its log.
        MissingDependencyError: TensorRT-RTX is not installed.
    """
    settings = _settings(import_library(target), target, max_batch_size=max_batch_size, options=options)
    return run_in_child(
        _build,
        what=f"{graph}: {target} {settings.version}",
        graph=graph,
        data=_served(graph, preprocess),
        target=target,
        settings=settings,
        timing_cache=timing_cache,
    )


def _build(
    graph: Path, *, data: bytes, target: PlanTarget, settings: PlanSettings, timing_cache: bytes | None
) -> BuiltPlan:
    trt = import_library(target)
    started, log = time.perf_counter(), fresh_log(trt)
    builder = start(trt.Builder, log)
    # Required by TensorRT 10; in TensorRT 11 every network is strongly typed.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # owns the weights, so it lives until the plan is built
    _parse(parser, data, graph, log)
    _require_fixed_size(network, graph)
    config = _configure(trt, builder, network, settings)
    cache = None if target == "tensorrt_rtx" else _attach_cache(config, timing_cache)
    with _progress(trt, config, what=f"{target} {graph.parent.name}"):
        serialised = builder.build_serialized_network(network, config)
    warnings = log.warnings
    if serialised is None:
        raise CompileError(f"{graph}: {target} {settings.version} could not compile it:{explain(log.errors)}")
    plan, seconds = bytes(serialised), time.perf_counter() - started
    layers, reason = inspect(plan, target=target, settings=settings)
    return BuiltPlan(
        data=plan,
        settings=settings,
        timing_cache=None if cache is None else bytes(cache.serialize()),
        layers=layers,
        layers_reason=reason,
        warnings=warnings,
        seconds=seconds,
    )


def _settings(trt: Any, target: PlanTarget, *, max_batch_size: int, options: TensorRT) -> PlanSettings:
    """The settings that apply on this machine."""
    optimal = options.optimal_batch_size or max_batch_size
    assert optimal <= max_batch_size  # Spec checks this
    on_gpu = target == "tensorrt"
    card, installed = (require_card("compiling for tensorrt"), Installed.here()) if on_gpu else (None, None)
    return PlanSettings(
        version=library_version(trt),
        compute_capability=None if card is None else card.compute_capability,
        card=card,
        release=None if installed is None else installed.release,
        dali=None if installed is None else installed.dali,
        nvimgcodec=None if installed is None else installed.nvimgcodec,
        batch_sizes=(1, optimal, max_batch_size),
        single_image_profile=has_single_image_profile(target, max_batch_size),
        optimization_level=options.optimization_level,
        hardware_compatibility=options.hardware_compatibility if on_gpu else "none",
        version_compatible=options.version_compatible if on_gpu else False,
    )


def has_single_image_profile(target: Target, max_batch_size: int) -> bool:
    return target == "tensorrt" and max_batch_size > 1


def _served(graph: Path, preprocess: Preprocess) -> bytes:
    """Raises CompileError: the file is not an ONNX graph of ours: FP32 in and out, names, batch, one file."""
    try:
        return served_graph(graph, preprocess)
    except OSError as error:
        raise CompileError(
            f"{graph}: cannot be read: {error.strerror}; give the ONNX file of a bundle or a graph"
        ) from None
    except ValueError as error:
        raise CompileError(f"{graph}: {error}") from None


def _parse(parser: Any, data: bytes, graph: Path, log: Any) -> None:
    if parser.parse(data):
        return
    errors = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node_name() or error.node()} ({error.node_operator()}): " if error.node() >= 0 else ""
        errors.append(f"{where}{error.code().name}: {error.desc()}")
    raise CompileError(f"{graph}: TensorRT cannot read this graph:{explain([*errors, *log.errors])}")


def _require_fixed_size(network: Any, graph: Path) -> None:
    shape = tuple(network.get_input(0).shape)
    if len(shape) != 4 or -1 in shape[1:]:
        raise CompileError(f"{graph}: {SERVED_INPUT} is {shape}, but all except the batch must be fixed: [n, H, W, 3]")


def _configure(trt: Any, builder: Any, network: Any, settings: PlanSettings) -> Any:
    config, image_hwc = builder.create_builder_config(), tuple(network.get_input(0).shape)[1:]
    for batch_sizes in (settings.batch_sizes, *([(1, 1, 1)] if settings.single_image_profile else [])):
        profile = builder.create_optimization_profile()
        profile.set_shape(SERVED_INPUT, *((batch, *image_hwc) for batch in batch_sizes))
        config.add_optimization_profile(profile)
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector then knows every layer's types
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, it cuts FP32 factors to 10 bits of mantissa
    if settings.hardware_compatibility != "none":
        levels = trt.HardwareCompatibilityLevel
        config.hardware_compatibility_level = getattr(levels, settings.hardware_compatibility.upper())
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    return config


def _attach_cache(config: Any, timing_cache: bytes | None) -> Any:
    """The cache that the build reads and extends: the given one, or an empty one if TensorRT rejects it."""
    for content in (timing_cache or b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


@contextmanager
def _progress(trt: Any, config: Any, *, what: str) -> Iterator[None]:
    """A progress bar of the build's steps, whose total grows as they appear."""

    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, bar: Any) -> None:
            trt.IProgressMonitor.__init__(self)
            self.bar = bar

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.bar.total += num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002
            self.bar.update()
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass

    with tqdm(total=0, desc=what, unit="step", leave=False, disable=None) as bar:
        monitor = Progress(bar)  # TensorRT does not keep it alive
        config.progress_monitor = monitor
        yield
