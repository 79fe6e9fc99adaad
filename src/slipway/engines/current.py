"""Tells whether a graph or an engine is current. Unless its manifest proves that, it is made again, with a reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from slipway.contract import (
    Bundle,
    BundleEngine,
    Manifest,
    ManifestError,
    MissingDependencyError,
    PlanSettings,
    SlipwayError,
)
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.card import Card
from slipway.contract.engine import Target, engine_name
from slipway.contract.evidence.build import BaseEngineMeasured, EmbeddingLoss, EngineMeasured, GraphMeasured
from slipway.contract.evidence.gate import PROOF, REFERENCE, AccuracyResult, Comparison
from slipway.contract.installed import Installed, differences
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.contract.spec import Precision
from slipway.engines.graph import Graph
from slipway.engines.predictions_csv import Row, gate_rows, read_rows
from slipway.engines.tensorrt import has_single_image_profile
from slipway.engines.tensorrt_library import import_library, library_version, require_card, require_release_of_server
from slipway.system.files import sha256_file

NAMES: dict[Target, str] = {
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "onnxruntime": "ONNX Runtime",
}


@dataclass(frozen=True)
class Compiler:
    """The compiler of a target on this machine."""

    target: Target
    version: str
    card: Card | None = None
    """This machine's GPU, for plans that are tied to one."""

    def __str__(self) -> str:
        suffix = "" if self.card is None else f" on {self.card}"
        return f"{NAMES[self.target]} {self.version}{suffix}"

    @property
    def compute_capability(self) -> str | None:
        """Compute capability of the GPU, which is part of a plan's name; None for engines that need no GPU."""
        return None if self.card is None else self.card.compute_capability


def installed(target: Target) -> Compiler:
    """The compiler of `target` here.

    Raises:
        CompileError, MissingDependencyError: the compiler or its GPU is missing.
        CompileError, SpecError: as `require_release_of_server`.
    """
    if target == "tensorrt":
        require_release_of_server()
    if target in ("tensorrt", "tensorrt_rtx"):
        card = require_card("compiling for tensorrt") if target == "tensorrt" else None
        return Compiler(target, library_version(import_library(target)), card)
    try:
        return Compiler(target, metadata.version(target))  # both runtimes have the name of their package
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(target, extra="build") from None


def stale_graph(folder: Path, *, bundle: Bundle | Base, precision: Precision) -> str | None:
    """Return the reason why the graph is not what `quantize` would write now, without autotune; None if its manifest
    proves that it is."""
    if not folder.is_dir():
        return _absent(folder)
    try:
        manifest = Manifest.open(folder, kind="graph")
    except SlipwayError as error:
        return str(error)
    if manifest.bundle != bundle.id:
        return f"made from {bundle.manifest.kind} {manifest.bundle!s:.12}, now {bundle.id:.12}"
    return next(_changes_of_graph(manifest, bundle, precision), None) or _other_bundle_manifest(manifest, bundle)


def _changes_of_graph(manifest: Manifest, bundle: Bundle | Base, precision: Precision) -> Iterator[str]:
    measured, method = manifest.read_measured(GraphMeasured), bundle.spec.calibration.method
    if measured.precision != precision:
        yield f"precision {measured.precision or 'not recorded'} → {precision}"
    if precision != "fp16" and measured.calibration_method != method:
        yield f"calibration.method {measured.calibration_method or 'not recorded'} → {method}"
    if measured.autotune is not None:
        yield "made with --autotune"
    yield from _changed_versions(manifest, ("nvidia-modelopt", *PIXEL_LIBRARIES[bundle.preprocess.decoder]))


def stale(
    folder: Path,
    bundle: Bundle | Base,
    graph: Graph,
    *,
    precision: Precision,
    compiler: Compiler,
    reference: BundleEngine | BaseEngine | None,
) -> str | None:
    """Return the reason why the engine folder is not what `build_engine` would write now; None if its manifest proves
    that it is.

    `graph` is the graph to compile, `reference` the FP32 engine that the gate compares with (None: this is it).
    """
    if not folder.is_dir():
        return _absent(folder, compiler)
    try:
        engine = bundle.open_engine(folder)
    except SlipwayError as error:
        return str(error)
    changes = _changes_of_engine(engine, bundle, graph, precision=precision, compiler=compiler, reference=reference)
    return next(changes, None) or _other_bundle_manifest(engine.manifest, bundle)


def _changes_of_engine(
    engine: BundleEngine | BaseEngine,
    bundle: Bundle | Base,
    graph: Graph,
    *,
    precision: Precision,
    compiler: Compiler,
    reference: BundleEngine | BaseEngine | None,
) -> Iterator[str]:
    settings = engine.settings
    if (settings.target, settings.precision) != (compiler.target, precision):
        yield f"the folder holds {engine_name(settings.target, settings.precision)}"
    if settings.graph_sha256 != graph.sha256:
        yield f"graph changed ({settings.graph_sha256:.12} → {graph.sha256:.12})"
    before = settings.plan.version if settings.plan is not None else engine.manifest.versions.get(compiler.target)
    if before != compiler.version:
        yield f"{NAMES[compiler.target]} {before or 'not recorded'} → {compiler.version}"
    if settings.plan is not None:
        yield from _changed_flags(settings.plan, bundle, compiler)
    yield from _changed_versions(engine.manifest, PIXEL_LIBRARIES[settings.decoder])
    yield from _changed_gate(engine, bundle, reference)


def _changed_flags(plan: PlanSettings, bundle: Bundle | Base, compiler: Compiler) -> Iterator[str]:
    if plan.compute_capability != compiler.compute_capability:
        yield f"compute capability {plan.compute_capability} → {compiler.compute_capability}"
    if plan.card is not None and compiler.card is not None and not plan.card.same_model(compiler.card):
        yield f"{plan.card} → {compiler.card}"
    options, largest = bundle.spec.tensorrt, bundle.spec.serving.gpu.max_batch_size
    wanted = {"optimization_level": options.optimization_level}
    if compiler.target == "tensorrt":  # TensorRT-RTX has no such flags
        wanted |= options.model_dump(include={"hardware_compatibility", "version_compatible"})
    for name, now in wanted.items():
        before = getattr(plan, name)
        if before != now:
            yield f"spec.tensorrt.{name} {before} → {now}"
    batch_sizes = (1, options.optimal_batch_size or largest, largest)
    if plan.batch_sizes != batch_sizes:
        yield f"batch sizes {plan.batch_sizes} → {batch_sizes}"
    if plan.single_image_profile != has_single_image_profile(compiler.target, largest):
        yield "the second optimisation profile, for single images"
    yield from differences({"nvimgcodec": plan.nvimgcodec}, Installed.here())  # DALI is in the manifest


def _changed_gate(
    engine: BundleEngine | BaseEngine, bundle: Bundle | Base, reference: BundleEngine | BaseEngine | None
) -> Iterator[str]:
    """Run the gate again on the stored answers: it must find what it recorded, with the spec's present limits. Of a
    base no embedding is stored: the same graph and libraries give them again, so only the limits are compared."""
    if engine.settings.target == "tensorrt_rtx":
        if engine.verdict != PROOF:
            yield f"its manifest says {engine.verdict!r}, but TensorRT-RTX only proves compilation"
        return
    if reference is None:
        if engine.verdict != REFERENCE:
            yield f"its manifest says {engine.verdict!r}, but it is the reference"
        return
    if isinstance(bundle, Base):
        yield from _changed_embedding_gate(engine, bundle)
        return
    try:
        recorded = engine.manifest.read_measured(EngineMeasured).gate
        before, after = read_rows(reference.path), read_rows(engine.path)
    except (ManifestError, OSError):
        recorded = None
    if not isinstance(recorded, AccuracyResult):
        yield "no gate evidence in the current format"
        return
    if _asked(before) != _asked(after):
        yield f"{reference.path.name} was evaluated on other images"
        return
    now = gate_rows(before, after, bundle)
    yield from _changed_limits(recorded, now)
    if _counts(recorded) != _counts(now):
        yield f"{reference.path.name} answers differently than when the gate compared with it"


def _changed_embedding_gate(engine: BundleEngine | BaseEngine, base: Base) -> Iterator[str]:
    try:
        recorded = engine.manifest.read_measured(BaseEngineMeasured).gate
    except ManifestError:
        recorded = None
    if not isinstance(recorded, EmbeddingLoss):
        yield "no gate evidence in the current format"
        return
    now = base.spec.embedding
    for name, before, after in (
        ("min_cosine", recorded.min_cosine, now.min_cosine),
        ("images", recorded.images, now.images),
    ):
        if before != after:
            yield f"spec.embedding.{name} {before} → {after}"


def _asked(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row["image"], row["truth"]) for row in rows]


def _changed_limits(recorded: AccuracyResult, now: AccuracyResult) -> Iterator[str]:
    limits = {
        "max_loss_points": (recorded.overall.max_loss_points, now.overall.max_loss_points),
        "max_class_loss_points": tuple(
            {comparison.max_loss_points for comparison in result.classes.values()} for result in (recorded, now)
        ),
        "max_flip_points": (recorded.flips.max_flip_points, now.flips.max_flip_points),
        "confidence": (recorded.confidence, now.confidence),
        "prove_classes": (recorded.prove_classes, now.prove_classes),
    }
    for name, (before, after) in limits.items():
        if before != after:
            yield f"spec.accuracy.{name} {before} → {after}"


def _counts(result: AccuracyResult) -> list[tuple[str, int, int, int, str]]:
    def of(name: str, comparison: Comparison) -> tuple[str, int, int, int, str]:
        return name, comparison.images, comparison.lost, comparison.gained, comparison.verdict

    flips = ("flips", result.flips.images, result.flips.flips, 0, result.flips.verdict)
    classes = (of(label, found) for label, found in sorted(result.classes.items()))
    return [flips, of("", result.overall), *classes]


def _changed_versions(manifest: Manifest, libraries: tuple[str, ...]) -> Iterator[str]:
    """Libraries that are installed now, in another version than was used then, or that were not used. One that is not
    installed here is not compared."""
    for name in libraries:
        before = manifest.versions.get(name)
        try:
            now = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if before != now:
            yield f"{name} {before or 'not recorded'} → {now}"


def _other_bundle_manifest(manifest: Manifest, bundle: Bundle | Base) -> str | None:
    """The last check: the bundle's id does not cover its spec and data set, but its manifest does."""
    now = sha256_file(bundle.path / MANIFEST)
    if manifest.inputs.get("bundle") == now:
        return None
    return f"the {bundle.manifest.kind} was written again since, and its spec or data set may have changed"


def _absent(folder: Path, compiler: Compiler | None = None) -> str:
    if any(folder.parent.glob(f".{folder.name}.*")):
        return "interrupted"
    capability = None if compiler is None else compiler.compute_capability
    if capability is not None:
        others = sorted(path.name for path in folder.parent.glob(f"{folder.name.rpartition('-sm')[0]}-sm*"))
        return f"compute capability {capability} missing" + (f" (there is {', '.join(others)})" if others else "")
    return "not there"
