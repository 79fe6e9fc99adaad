"""Chooses the precision that a lane serves: the fastest measured one that the spec lists and that passed its gate."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from slipway.contract import Bundle, BundleEngine, Choice, CompileError, GateError
from slipway.contract.base_bundle import AnyEngine_co, Base, BaseEngine, Owner
from slipway.contract.bundle import CalibrationList
from slipway.contract.card import Card
from slipway.contract.choice import Contender, choice_name
from slipway.contract.engine import engine_name
from slipway.contract.evidence.origin import Machine, versions
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.contract.shared_rules import SERVED
from slipway.contract.spec import Precision
from slipway.engines.plan import plan_network
from slipway.engines.tensorrt_library import require_card
from slipway.evaluation.predict import Pixels, ServedNetwork
from slipway.steps import engine_openvino
from slipway.steps.postprocess import Postprocessor
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_file
from slipway.system.targets import check_file, write_file

WARM_UP_ROUNDS = 2
Item = TypeVar("Item")


@dataclass(frozen=True)
class Contest(Generic[AnyEngine_co]):
    """The engines of one target, and for plans of one GPU, that may be served."""

    bundle: Owner[AnyEngine_co]
    engines: Path
    lane: Literal["cpu", "gpu"]
    card: Card | None = None

    def name(self, precision: Precision) -> str:
        capability = None if self.card is None else self.card.compute_capability
        return engine_name("openvino" if self.lane == "cpu" else "tensorrt", precision, capability)

    @property
    def file(self) -> Path:
        return self.engines / choice_name(None if self.card is None else self.card.compute_capability)

    @property
    def reference(self) -> str:
        return self.name("fp32")

    @property
    def listed(self) -> list[str]:
        """Names of the engines that the spec lists, in its order."""
        return [self.name(precision) for precision in self.bundle.spec.precisions if precision in SERVED[self.lane]]

    def open(self) -> dict[str, AnyEngine_co]:
        """Open the built engines by name. FP32 is required: it is the yardstick even where the spec does not list
        it."""
        check_file(self.file, mark=("chosen",), what="a choice between engines")
        names = [name for name in self.listed if name != self.reference and (self.engines / name).is_dir()]
        return {name: self.bundle.open_engine(self.engines / name) for name in (self.reference, *names)}

    def passed(self, opened: Mapping[str, BundleEngine | BaseEngine]) -> list[str]:
        """Raises GateError: none that the spec lists passed its gate."""
        passed = [name for name in self.listed if name in opened and opened[name].may_be_served]
        if not passed:
            verdicts = {name: opened[name].verdict if name in opened else "not built" for name in self.listed}
            limit = ", or lower embedding.min_cosine" if isinstance(self.bundle, Base) else ""
            raise GateError(
                f"{self.engines}: none of the spec's precisions can be served on the {self.lane} lane: "
                f"{verdicts or 'none is listed'}; see their evaluation.json, or list another in the spec "
                f"({', '.join(SERVED[self.lane])}){limit}"
            )
        return passed


def choose(bundle: Bundle | Base, engines: Path, *, rounds: int, images_per_round: int) -> Choice:
    """Measure `engines/openvino-*` of the spec's precisions against each other and write `engines/choice.json`.

    Every round sends the same images one by one through each engine in turn, in a rotating order, so that a
    disturbance affects all of them. FP32 is measured as the reference even if the spec does not list it. Of a base, the
    time ends with the embedding.

    Raises:
        ManifestError: an engine is missing or changed, or belongs to another bundle.
        GateError: no engine that the spec lists passed its gate.
    """
    contest = Contest(bundle, engines, "cpu")
    opened = contest.open()
    passed = contest.passed(opened)
    runs = {name: _pipeline(bundle, opened[name]) for name in sorted({contest.reference, *passed})}
    images = [encoded for _, encoded in CalibrationList.load(bundle.path)][:images_per_round]
    times_ms = interleave(runs, images, rounds=rounds)
    libraries = ("openvino", *PIXEL_LIBRARIES["cpu"])
    return _write(contest, opened, passed, times_ms, rounds=rounds, images=len(images), libraries=libraries)


def choose_plan(
    bundle: Owner[AnyEngine_co],
    engines: Path,
    *,
    rounds: int,
    calls_per_round: int,
    card: Card | None = None,
    network_of: Callable[[AnyEngine_co], ServedNetwork] | None = None,
) -> Choice:
    """Measure `engines/tensorrt-*` for this machine's GPU against each other and write `engines/choice-sm90.json`.

    As `choose`, but the network alone: decoding is the same for all. Its unit is a call with a single image and one
    with the largest batch, which stand for an idle and for a busy server.

    Args:
        card: the GPU that the plans are measured on; left out, the first of this machine.
        network_of: makes the callable of a plan; left out, TensorRT runs it.

    Raises:
        CompileError: this machine has no GPU, a plan was built on another card, or the plans' largest batches differ.
        ManifestError, GateError: as `choose`.
    """
    card = card or require_card("choosing between plans")
    contest = Contest(bundle, engines, "gpu", card)
    opened = contest.open()
    passed = contest.passed(opened)
    measured = sorted({contest.reference, *passed})
    for name in measured:
        _require_same_card(opened[name], card)
    _require_same_batch(bundle, [opened[name] for name in measured])
    make = network_of or plan_network
    runs = {name: _calls(make(opened[name])) for name in measured}
    units = [_batches(bundle, opened[contest.reference])] * calls_per_round
    times_ms = interleave(runs, units, rounds=rounds)
    return _write(contest, opened, passed, times_ms, rounds=rounds, images=calls_per_round, libraries=("onnx",))


def _require_same_card(engine: BundleEngine | BaseEngine, card: Card) -> None:
    plan = engine.settings.plan
    assert plan is not None
    if plan.card is not None and plan.hardware_compatibility == "none" and not plan.card.same_model(card):
        raise CompileError(
            f"{engine.path}: built on {plan.card}, and this machine has {card}; compile it again here, since its "
            "kernels were chosen on the other card"
        )


def _require_same_batch(bundle: Owner[AnyEngine_co], engines: Sequence[BundleEngine | BaseEngine]) -> None:
    """Raises CompileError: the plans differ in their largest batch, so a full one is not the same work for each."""
    largest = {engine.path: engine.settings.plan.batch_sizes[2] for engine in engines if engine.settings.plan}
    if len({*largest.values()}) > 1:
        wanted = bundle.spec.serving.gpu.max_batch_size
        others = ", ".join(f"{path} for {size}" for path, size in largest.items() if size != wanted)
        raise CompileError(
            f"plans with different largest batches cannot be compared: {others}, while the spec says {wanted} "
            "(serving.gpu.max_batch_size); compile them again"
        )


def _batches(bundle: Owner[AnyEngine_co], engine: BundleEngine | BaseEngine) -> tuple[Pixels, Pixels]:
    """Random pixels: a single image, and the largest batch."""
    plan = engine.settings.plan
    assert plan is not None
    shape = (plan.batch_sizes[2], *bundle.preprocess.input_size, 3)
    pixels_nhwc_u8 = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return pixels_nhwc_u8[:1], pixels_nhwc_u8


def _calls(network: ServedNetwork) -> Callable[[tuple[Pixels, Pixels]], None]:
    def run(batches: tuple[Pixels, Pixels]) -> None:
        for pixels_nhwc_u8 in batches:
            network(pixels_nhwc_u8)

    return run


def _pipeline(bundle: Bundle | Base, engine: BundleEngine | BaseEngine) -> Callable[[bytes], None]:
    """The cpu lane's three steps in this process; of a base, the first two."""
    serving = bundle.spec.serving
    preprocessor = Preprocessor(bundle.preprocess.model_dump(), max_batch_size=1, threads=serving.threads)
    network = engine_openvino.Engine(
        engine.path / "model.onnx", arithmetic=engine.settings.arithmetic, threads=serving.threads
    )
    postprocessor = None
    if isinstance(engine, BundleEngine) and isinstance(bundle, Bundle):
        postprocessor = Postprocessor(engine.decision.model_dump(), bundle.labels)

    def run(encoded: bytes) -> None:
        pixels_nhwc_u8, status_n = preprocessor.run([encoded])
        logits_nc, embedding_nd = network.run(pixels_nhwc_u8)
        if postprocessor is not None:
            postprocessor.run(logits_nc, status_n, embedding_nd)

    return run


def interleave(
    runs: dict[str, Callable[[Item], None]], items: Sequence[Item], *, rounds: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Median milliseconds per item for each of `runs` and each round, after two warm-up rounds."""
    names = sorted(runs)
    medians_ms: dict[str, list[float]] = {name: [] for name in names}
    for number in tqdm(range(WARM_UP_ROUNDS + rounds), desc="rounds", leave=False, disable=None):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times_ms = []
            for item in items:
                started = time.perf_counter()
                runs[name](item)
                times_ms.append(1000 * (time.perf_counter() - started))
            if number >= WARM_UP_ROUNDS:
                medians_ms[name].append(float(np.median(times_ms)))
    return {name: np.array(values) for name, values in medians_ms.items()}


def _write(
    contest: Contest[AnyEngine_co],
    opened: Mapping[str, BundleEngine | BaseEngine],
    passed: Sequence[str],
    times_ms: dict[str, npt.NDArray[np.float64]],
    *,
    rounds: int,
    images: int,
    libraries: tuple[str, ...],
) -> Choice:
    """The fastest of `passed`, written beside the engines with the measurements."""
    reference = times_ms[contest.reference]
    candidates = {name: _candidate(opened[name], times_ms.get(name), reference) for name in opened}
    fastest = min(passed, key=lambda name: candidates[name].median_ms or np.inf)
    choice = Choice(
        bundle=contest.bundle.id,
        chosen=fastest,
        reason=_reason(fastest, candidates, contest.listed),
        candidates=tuple(candidates[name] for name in sorted(candidates)),
        rounds=rounds,
        images_per_round=images,
        threads=contest.bundle.spec.serving.threads,
        machine=Machine.this().cpu,
        card=contest.card,
        versions=versions(libraries),
    )
    write_file(contest.file, choice.to_json())
    return choice


def _candidate(
    engine: BundleEngine | BaseEngine, times_ms: npt.NDArray[np.float64] | None, reference_ms: npt.NDArray[np.float64]
) -> Contender:
    numbers: dict[str, float] = {}
    if times_ms is not None:
        low, middle, high = np.percentile(reference_ms / times_ms, [10, 50, 90]).tolist()
        median_ms = float(np.median(times_ms))
        numbers = {"median_ms": median_ms, "speed_to_fp32": middle, "speed_low": low, "speed_high": high}
    return Contender(
        engine=engine.path.name,
        manifest_sha256=sha256_file(engine.path / MANIFEST),
        precision=engine.settings.precision,
        verdict=engine.verdict,
        **numbers,
    )


def _reason(chosen: str, candidates: dict[str, Contender], listed: Sequence[str]) -> str:
    best = candidates[chosen]
    unit = "a single image and a full batch" if chosen.startswith("tensorrt-") else "an image"
    text = (
        f"{chosen}: the fastest listed engine that passed the gate, {best.median_ms:.2f} ms {unit}, "
        f"{best.speed_to_fp32:.2f} times FP32's speed ({best.speed_low:.2f} to {best.speed_high:.2f})"
    )
    others = {name: candidates.get(name) for name in listed if name != chosen}
    close = [name for name, other in others.items() if other is not None and _overlap(best, other)]
    if close:
        verb = "is" if len(close) == 1 else "are"
        text += f", by its median alone: {' and '.join(close)} {verb} within noise (the intervals overlap)"
    return "; ".join([text, *(_beside(name, other) for name, other in others.items())])


def _overlap(best: Contender, other: Contender) -> bool:
    """Whether the speeds that 80 % of the rounds showed have a part in common."""
    if best.speed_low is None or other.speed_high is None:
        return False
    return other.speed_high >= best.speed_low


def _beside(name: str, candidate: Contender | None) -> str:
    if candidate is None:  # such as BF16 on a processor without it
        return f"{name} was not built"
    if candidate.median_ms is None:
        return f"{name} did not pass"
    return f"{name} {candidate.speed_to_fp32:.2f} times ({candidate.speed_low:.2f} to {candidate.speed_high:.2f})"
