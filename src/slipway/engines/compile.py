"""Makes an engine folder: compiles a graph for one target, evaluates both splits, gates against FP32 and seals it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, BundleEngine, CompileError, EngineSettings, Manifest, PlanSettings
from slipway.contract.base_bundle import AnyEngine_co, Base, BaseEngine, BaseSpec, Owner
from slipway.contract.engine import RUNTIMES, Target, engine_name, plan_name
from slipway.contract.evidence.build import BaseEngineMeasured, EngineMeasured, EngineTimed, PlanMeasured
from slipway.contract.evidence.gate import PROOF, Ungated
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.contract.shared_rules import FALLBACKS, has_fp8
from slipway.contract.spec import Precision, Spec
from slipway.engines.base_engines import evaluate_base
from slipway.engines.evaluate import evaluate_engine, time_batches
from slipway.engines.graph import Graph
from slipway.engines.plan import PlanRunner, layer_precisions
from slipway.engines.tensorrt import build_plan, compute_capability
from slipway.engines.tensorrt_library import require_release_of_server
from slipway.engines.typed_graph import PROVIDER, TypedGraph
from slipway.evaluation.predict import ServedNetwork
from slipway.onnx_graph import SERVED_INPUT, output_sizes
from slipway.steps import engine_openvino
from slipway.system.files import complete_folder, sha256_file
from slipway.system.targets import check_folder, write_file

COMPILED: dict[Target, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "int8", "fp16"),
    "tensorrt": ("fp32", "fp16", "int8", "fp8"),
    "tensorrt_rtx": ("fp32", "fp16", "int8", "fp8"),
    "onnxruntime": FALLBACKS,
}
"""Precisions of each target. In OpenVINO an FP16 graph computes in FP32: it tests the weights and is never served."""
LIBRARIES = ("onnx", "scipy", "scikit-learn")
NOTHING = PlanMeasured()


def wanted(spec: Spec | BaseSpec, target: Target) -> list[Precision]:
    """Precisions of a target that the spec lists, and FP32, with which the others are compared. ONNX Runtime needs no
    FP32 engine of its own for that: the gate's reference is OpenVINO's, and nothing is timed."""
    always = () if target == "onnxruntime" else ("fp32",)
    return [precision for precision in COMPILED[target] if precision in (*always, *spec.precisions)]


def require_listed(spec: Spec | BaseSpec, target: Target) -> None:
    """Raises CompileError: the spec lists no precision of the target, so that nothing could be served."""
    if not set(COMPILED[target]).intersection(spec.precisions):
        raise CompileError(
            f"the spec lists only {', '.join(spec.precisions)}, but the target {target} takes "
            f"{', '.join(COMPILED[target])}; list one of them in its precisions and build the bundle again, or compile "
            "for another target"
        )


def require_fp8(compute_capability: str | None) -> None:
    """Raises CompileError: this GPU has no FP8. Without a GPU (None) nothing is raised: the compiler reports that."""
    if compute_capability is not None and not has_fp8(compute_capability):
        raise CompileError(
            "FP8 needs a GPU of compute capability 8.9 or later (Ada, Hopper, Blackwell), and this one has "
            f"{compute_capability}; list int8 or fp16 in the spec's precisions for it"
        )


@dataclass(frozen=True)
class Job:
    """One engine to build, and the FP32 engine that the gate compares it with."""

    bundle: Owner[Any]
    graph: Graph
    target: Target
    precision: Precision
    reference: BundleEngine | BaseEngine | None


def build_engine(
    bundle: Owner[AnyEngine_co],
    graphs: Path,
    out: Path,
    *,
    target: Target,
    precision: Precision,
    reference: AnyEngine_co | None,
    timing_cache: Path | None = None,
) -> AnyEngine_co:
    """Write one engine folder of a bundle or base with its evidence below `out`, whatever the gate's verdict; return it
    opened.

    `reference` is the FP32 engine that the gate compares with, or None for `openvino-fp32` itself. `timing_cache` is a
    file that TensorRT reads and adds to; left out, it is `timing_cache_of(out, target)`.

    Raises:
        CompileError: the target's compiler rejected the graph, or this machine cannot run it.
        ManifestError: the graph is missing or not of this bundle.
        DataError: an image of the data set is missing or changed.
    """
    graph = Graph.open(bundle, graphs, precision)
    check_folder(out / engine_name(target, precision), kind="engine", inputs=[bundle.path, graph.path.parent])
    job = Job(bundle, graph, target, precision, reference)
    if target in RUNTIMES:
        return bundle.open_engine(_build_runtime(job, out))
    return bundle.open_engine(_build_plan(job, out, cache=timing_cache or timing_cache_of(out, target)))


def timing_cache_of(out: Path, target: Target) -> Path | None:
    """Return the path of TensorRT's timing cache, which stays beside the engines between builds, one for each compute
    capability."""
    capability = compute_capability() if target == "tensorrt" else None
    return None if capability is None else out / f"timing-sm{capability.replace('.', '')}.cache"


def _build_runtime(job: Job, out: Path) -> Path:
    threads = job.bundle.spec.serving.threads
    folder = out / engine_name(job.target, job.precision)
    with complete_folder(folder, kind="engine") as staging:
        served = staging / "model.onnx"
        served.write_bytes(job.graph.served)
        if job.target == "onnxruntime":
            arithmetic, provider = "typed", PROVIDER
            network = TypedGraph(served, threads=threads).run
        else:
            opened, arithmetic = openvino(served, precision=job.precision, threads=threads)
            network, provider = opened.run, None
        settings = _settings(job, arithmetic=arithmetic, provider=provider)
        _finish(staging, job, settings, network, libraries=(job.target,))
    return folder


def openvino(graph: Path, *, precision: Precision, threads: int) -> tuple[engine_openvino.Engine, str]:
    """A graph in OpenVINO, and the arithmetic of its layers without Q/DQ nodes.

    Raises:
        CompileError: OpenVINO refuses the graph, or the processor lacks the arithmetic.
    """
    arithmetic = "bf16" if precision == "bf16" else "f32"
    try:
        return engine_openvino.Engine(graph, arithmetic=arithmetic, threads=threads), arithmetic
    except ValueError as error:
        remedy = "; leave bf16 out of the spec's precisions, or compile where it is served"
        raise CompileError(f"{graph.parent.name}: {error}{remedy if precision == 'bf16' else ''}") from None


def _build_plan(job: Job, out: Path, *, cache: Path | None) -> Path:
    bundle, target = job.bundle, job.target
    assert target in ("tensorrt", "tensorrt_rtx")
    if target == "tensorrt":
        require_release_of_server()
        if job.precision == "fp8":
            require_fp8(compute_capability())
    plan = build_plan(
        job.graph.path,
        preprocess=bundle.preprocess,
        target=target,
        max_batch_size=bundle.spec.serving.gpu.max_batch_size,
        options=bundle.spec.tensorrt,
        timing_cache=cache.read_bytes() if cache is not None and cache.is_file() else None,
    )
    if cache is not None and plan.timing_cache is not None:
        write_file(cache.resolve(), plan.timing_cache)  # a link to a cache that jobs share stays one
    capability = plan.settings.compute_capability
    folder = out / engine_name(target, job.precision, capability)
    with complete_folder(folder, kind="engine") as staging:
        (staging / plan_name(capability)).write_bytes(plan.data)
        settings = _settings(job, arithmetic="typed", plan=plan.settings)
        measured = PlanMeasured(build_s=plan.seconds, plan_bytes=len(plan.data), warnings=plan.warnings)
        if plan.layers is None:
            measured = measured.model_copy(update={"layers_unknown": plan.layers_reason})
        else:
            (staging / "layers.json").write_text(json.dumps(plan.layers, indent=1) + "\n", encoding="utf-8")
            measured = measured.model_copy(update={"layer_precisions": layer_precisions(plan.layers)})
        network = None if target == "tensorrt_rtx" else PlanRunner(plan.data, settings=plan.settings).run
        _finish(staging, job, settings, network, measured=measured)
    return folder


def _settings(
    job: Job, *, arithmetic: str, plan: PlanSettings | None = None, provider: str | None = None
) -> EngineSettings:
    sizes = output_sizes(job.graph.path)
    return EngineSettings.parse(
        {
            "target": job.target,
            "precision": job.precision,
            "arithmetic": arithmetic,
            # The gpu lane decodes with nvJPEG, so its plans are evaluated with nvJPEG, where their GPU is.
            "decoder": "mixed" if job.target == "tensorrt" else job.bundle.preprocess.decoder,
            "classes": sizes["logits_nc"],
            "embedding_size": sizes["embedding_nd"],
            "input": SERVED_INPUT,
            "graph_sha256": job.graph.sha256,
            "calibration_sha256": sha256_file(job.bundle.path / "calibration.json"),
            "plan": plan,
            "provider": provider,
        },
        source="engine.json",
    )


def _timed_batches(bundle: Owner[Any], settings: EngineSettings) -> set[int]:
    """Batch sizes to time: none in ONNX Runtime, which computes a graph on the CPU that a GPU will serve."""
    if settings.target == "onnxruntime":
        return set()
    return {1, bundle.spec.serving.max_batch_size if settings.plan is None else settings.plan.batch_sizes[2]}


def _finish(
    staging: Path,
    job: Job,
    settings: EngineSettings,
    network: ServedNetwork | None,
    *,
    libraries: tuple[str, ...] = (),
    measured: PlanMeasured = NOTHING,
) -> None:
    """Evaluate `network` (None: proof only, since it cannot run here), then write and seal everything."""
    bundle, graph = job.bundle, job.graph
    settings.write(staging / "engine.json")
    timed = EngineTimed(**measured.fields(), graph=graph.measured)
    if network is not None:
        latency = time_batches(network, bundle, batch_sizes=_timed_batches(bundle, settings))
        found = _judged(staging, job, settings, network, timed.model_copy(update={"latency": latency}))
    elif isinstance(bundle, Bundle):
        bundle.decision.write(staging / "decision.json")
        found = EngineMeasured(**timed.fields(), gate=Ungated(verdict=PROOF))
    else:
        found = BaseEngineMeasured(**timed.fields(), gate=Ungated(verdict=PROOF))
    Manifest.seal(
        staging,
        kind="engine",
        name=bundle.spec.name,
        bundle=bundle.id,
        inputs=graph.inputs,
        libraries=("onnx",) if network is None else (*LIBRARIES, *PIXEL_LIBRARIES[settings.decoder], *libraries),
        versions_before=graph.versions,
        measured=found,
    )


def _judged(
    staging: Path, job: Job, settings: EngineSettings, network: ServedNetwork, timed: EngineTimed
) -> EngineMeasured | BaseEngineMeasured:
    """Add the gate's result to `timed`. A bundle is judged by its labels, which also writes the evaluation; a base by
    its embeddings."""
    bundle, reference, name, decoder = job.bundle, job.reference, settings.precision, settings.decoder
    single = settings.plan is not None and settings.plan.single_image_profile
    if isinstance(bundle, Base):
        assert not isinstance(reference, BundleEngine)
        gate = evaluate_base(
            bundle, network, name=name, decoder=decoder, reference=reference, single_image_profile=single
        )
        return BaseEngineMeasured(**timed.fields(), gate=gate)
    assert isinstance(bundle, Bundle)
    assert not isinstance(reference, BaseEngine)
    evaluated = evaluate_engine(
        bundle,
        network,
        name=name,
        arithmetic=settings.arithmetic,
        decoder=decoder,
        reference=reference,
        single_image_profile=single,
    )
    evaluated.write(staging)
    return EngineMeasured(**timed.fields(), **evaluated.judged.fields())
