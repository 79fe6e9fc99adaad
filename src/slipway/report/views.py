"""Prepares each part of the page: rows with their positions on an axis, cut to a readable number."""

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from slipway.contract.choice import Contender
from slipway.contract.evidence.build import SensitivitySearch
from slipway.contract.evidence.evaluation import Flip
from slipway.contract.evidence.gate import (
    FAIL,
    PASS,
    PROOF,
    REFERENCE,
    TOO_FEW,
    AccuracyResult,
    Comparison,
    Flips,
    ReferenceAnswers,
)
from slipway.pages.tables import Scale, Tone
from slipway.pages.thumbnails import Thumbnail, Thumbnails
from slipway.report.build import FAILED_SEARCH, Build, BuiltEngine
from slipway.report.verdict import lane_verdicts

CLASSES_SHOWN, FLIPS_SHOWN, FLIPS_OPEN, LAYERS_SHOWN = 50, 60, 12, 40
TONES: dict[str, Tone] = {PASS: "good", REFERENCE: "good", FAIL: "bad", TOO_FEW: "warn", PROOF: "plain"}
BITS = {"INT8": 8, "FP8": 8, "FP16": 16, "BF16": 16, "FP32": 32}
LIMITS_SHOWN = 6
"""Reach of an axis of losses in multiples of the gate's limit; larger losses are an arrow and a number."""


@dataclass(frozen=True)
class AccuracyLoss:
    """A comparison with FP32, and the gate's verdict on it."""

    name: str
    comparison: Comparison
    tone: Tone
    verdict: str
    recall_fp32: float | None = None
    recall: float | None = None
    flips: Flips | None = None
    """Flips of all images together; None for a class, like `reference`."""
    reference: ReferenceAnswers | None = None


@dataclass(frozen=True)
class LossTable:
    """A table of losses on one axis, the worst first."""

    engine: BuiltEngine
    gate: AccuracyResult
    rows: tuple[AccuracyLoss, ...]
    left_out: int
    scale: Scale
    open: bool
    """Whether the table starts open: the engine is served, or blocks serving."""


@dataclass(frozen=True)
class Gallery:
    """The flips of one engine, cut to the number shown."""

    engine: BuiltEngine
    flips: tuple[tuple[Flip, Thumbnail], ...]
    counts: dict[str, int]
    """Number of all flips by effect."""
    left_out: int
    open: bool
    """Whether the gallery starts open: the engine is served, or the gallery is short."""


@dataclass(frozen=True)
class Speed:
    """The candidates of `choice.json` on one axis of FP32's speed."""

    candidates: tuple[Contender, ...]
    scale: Scale


@dataclass(frozen=True)
class FileSize:
    """The size of a model file, and its share of the FP32 file for the same target and GPU."""

    engine: BuiltEngine
    ratio: float | None
    percent: float
    """Size in percent of the largest file."""


@dataclass(frozen=True)
class Layers:
    """The number of an engine's layers in each precision, and its source."""

    engine: BuiltEngine
    counts: tuple[tuple[str, int, int], ...]
    """Name of each precision, its number of layers and its bits (0 if unknown), the fewest bits first."""
    source: str
    unknown: str = ""
    """The reason why there are no counts."""

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Return each precision's style-sheet class and its percentage of the layers."""
        total = sum(count for _, count, _ in self.counts)
        return [(f"b{bits}", 100 * count / total) for _, count, bits in self.counts]


@dataclass(frozen=True)
class SearchPath:
    """The steps of the search and the ranking that it followed."""

    search: SensitivitySearch
    scale: Scale
    error_scale: Scale
    kept: frozenset[str]
    left_out: int
    source: str
    stale: tuple[str, ...]
    """INT8 engines that were not compiled from the graph of this search."""


def accuracy(build: Build) -> list[BuiltEngine]:
    """Return the engines with an evaluation."""
    return [engine for engine in build.engines if engine.evaluation is not None]


def losses(build: Build) -> tuple[list[AccuracyLoss], Scale]:
    """Return the top-1 loss of every engine that was compared with FP32."""
    rows = [
        AccuracyLoss(
            name=engine.name,
            comparison=gate.overall,
            tone=TONES.get(gate.overall.verdict, "warn"),
            verdict=gate.overall.verdict,
            flips=gate.flips,
            reference=gate.reference,
        )
        for engine, gate in _gated(build)
    ]
    return rows, _loss_scale(rows)


def class_tables(build: Build) -> list[LossTable]:
    """Return the recall loss of every class for each engine that was compared with FP32."""
    return [_class_table(build, engine, gate) for engine, gate in _gated(build)]


def _class_table(build: Build, engine: BuiltEngine, gate: AccuracyResult) -> LossTable:
    in_the_way = gate.hindering
    reference = build.engine("openvino-fp32")
    before = {} if reference is None or reference.evaluation is None else dict(reference.evaluation.per_class)
    after = {} if engine.evaluation is None else dict(engine.evaluation.per_class)
    rows = []
    for label, result in gate.classes.items():
        tolerated = result.verdict == TOO_FEW and label not in in_the_way
        rows.append(
            AccuracyLoss(
                name=label,
                comparison=result,
                tone="plain" if tolerated else TONES.get(result.verdict, "warn"),
                verdict="within the limit, not proven" if tolerated else result.verdict,
                recall_fp32=before[label].recall if label in before else None,
                recall=after[label].recall if label in after else None,
            )
        )
    rows.sort(key=lambda row: (row.name not in in_the_way, -row.comparison.loss_points, -row.comparison.lost))
    shown = rows[:CLASSES_SHOWN]
    return LossTable(
        engine=engine,
        gate=gate,
        rows=tuple(shown),
        left_out=len(rows) - len(shown),
        scale=_loss_scale(shown),
        open=_is_served(build, engine) or gate.verdict != PASS,
    )


def galleries(build: Build) -> list[Gallery]:
    """Return each engine's flips: lost, gained, then wrong both times, each sorted by FP32's confidence."""
    thumbnails = Thumbnails(build.dataset, exif_orientation=build.bundle.preprocess.exif_orientation)
    order = ("lost", "gained", "wrong")
    flips = {
        engine.name: sorted(
            () if engine.evaluation is None else engine.evaluation.flips,
            key=lambda flip: (order.index(flip.effect), -flip.fp32_score, flip.image),
        )
        for engine, _ in _gated(build)
    }
    wanted = dict.fromkeys(flip.image for found in flips.values() for flip in found[:FLIPS_SHOWN])
    for image in tqdm(wanted, desc="thumbnails", unit="image", leave=False, disable=None):
        thumbnails.of(image)
    return [
        Gallery(
            engine=engine,
            flips=tuple((flip, thumbnails.of(flip.image)) for flip in flips[engine.name][:FLIPS_SHOWN]),
            counts={effect: sum(flip.effect == effect for flip in flips[engine.name]) for effect in order},
            left_out=max(0, len(flips[engine.name]) - FLIPS_SHOWN),
            open=len(flips[engine.name]) <= FLIPS_OPEN or _is_served(build, engine),
        )
        for engine, _ in _gated(build)
    ]


def speed(build: Build) -> Speed | None:
    if build.choice is None:
        return None
    candidates = sorted(build.choice.candidates, key=lambda candidate: -(candidate.speed_to_fp32 or 0.0))
    return Speed(tuple(candidates), Scale.over(candidate.speed_high or 0.0 for candidate in candidates))


def latencies(build: Build) -> tuple[list[BuiltEngine], list[int]]:
    """Return the engines whose network was timed alone, and all their batch sizes."""
    timed = [engine for engine in build.engines if engine.measured.latency]
    return timed, sorted({size for engine in timed for size in engine.measured.latency})


def sizes(build: Build) -> list[FileSize]:
    greatest = max((engine.size_bytes for engine in build.engines), default=1)
    return [
        FileSize(
            engine=engine,
            ratio=None if (fp32 := _fp32_of(build, engine)) is None else engine.size_bytes / fp32.size_bytes,
            percent=100 * engine.size_bytes / greatest,
        )
        for engine in build.engines
    ]


def layers(build: Build) -> list[Layers]:
    """Count the layers of each plan that could be read back, otherwise of the engine's graph."""
    return [_layers(build, engine) for engine in build.engines]


def _layers(build: Build, engine: BuiltEngine) -> Layers:
    measured, graph = engine.measured, engine.measured.graph
    manifest = build.file(engine.name, "manifest.json")
    if measured.layer_precisions:
        return Layers(
            engine, _by_bits(measured.layer_precisions), f"the plan: {build.file(engine.name, 'layers.json')}"
        )
    if build.bundle.base is not None:
        return Layers(engine, (), manifest, f"A head, all FP32, fitted to the embeddings of {build.bundle.base.name}.")
    unknown = f"Plan not read back: {measured.layers_unknown}" if measured.layers_unknown else ""
    if graph.layers is None:
        of_bundle = engine.precision in ("fp32", "bf16")
        why = "The bundle's own graph, all FP32." if of_bundle else "The graph was made before layers were counted."
        return Layers(engine, (), manifest, f"{why} {unknown}".strip())
    return Layers(engine, _by_bits(graph.by_precision), f"the graph: {manifest}", unknown)


def _by_bits(counts: dict[str, int]) -> tuple[tuple[str, int, int], ...]:
    found = [(name, count, BITS.get(name, 0)) for name, count in counts.items() if count]
    return tuple(sorted(found, key=lambda entry: (entry[2] or 64, entry[0])))


def search(build: Build) -> SearchPath | None:
    graph = build.graphs.get("int8")
    found = build.failed_search if graph is None else graph.search
    if found is None:
        return None
    points = [step.validation.loss_points for step in found.steps]
    return SearchPath(
        search=found,
        scale=Scale.over([*points, found.max_loss_points]),
        error_scale=Scale.over(entry.error for entry in found.ranking),
        kept=frozenset(found.steps[-1].kept_fp16 if found.steps else ()),
        left_out=max(0, len(found.ranking) - LAYERS_SHOWN),
        source=FAILED_SEARCH if graph is None else "int8/search.json",
        stale=tuple(
            engine.name
            for engine in build.engines
            if graph is not None
            and engine.precision == "int8"
            and engine.engine.manifest.inputs.get("graph") != graph.manifest_sha256
        ),
    )


def _gated(build: Build) -> list[tuple[BuiltEngine, AccuracyResult]]:
    return [(e, e.evaluation.gate) for e in build.engines if e.evaluation is not None and e.evaluation.gate is not None]


def _is_served(build: Build, engine: BuiltEngine) -> bool:
    return any(engine in lane.serves for lane in lane_verdicts(build))


def _loss_scale(rows: Sequence[AccuracyLoss]) -> Scale:
    results = [row.comparison for row in rows]
    values = [
        value for r in results for value in (r.loss_low_points, r.loss_high_points, r.loss_points, r.max_loss_points)
    ]
    return Scale.over(values, most=LIMITS_SHOWN * max((r.max_loss_points for r in results), default=1.0))


def _fp32_of(build: Build, engine: BuiltEngine) -> BuiltEngine | None:
    same = (engine.target, engine.compute_capability)
    return next(
        (
            other
            for other in build.engines
            if (other.target, other.compute_capability) == same and other.precision == "fp32"
        ),
        None,
    )
