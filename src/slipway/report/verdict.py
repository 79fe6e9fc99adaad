"""Lists the engines of each lane with the reason, and faults and missing parts with their remedies."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.contract.engine import LANES
from slipway.contract.evidence.gate import FAIL, PASS, TOO_FEW, AccuracyResult, Comparison
from slipway.contract.lane import NO_PLAN, LaneName
from slipway.contract.shared_rules import SERVED, fallback_engine, has_fp8, listed
from slipway.evaluation.intervals import images_to_prove
from slipway.pages.tables import Tone
from slipway.pages.wording import points
from slipway.report.build import PRECISIONS, Build, BuiltEngine
from slipway.system.text import command

CLASSES_NAMED = 5


@dataclass(frozen=True)
class LaneVerdict:
    """The engines that one lane serves, and the reason."""

    lane: LaneName
    tone: Tone
    serves: tuple[BuiltEngine, ...]
    """The served engines: one on the cpu lane, one per compute capability on the gpu lane; empty while undecided."""
    reason: str
    source: str
    """The file that gives the reason; empty where a missing file is the reason."""
    command: str = ""


@dataclass(frozen=True)
class Todo:
    """A part that failed, could not be judged or is missing, with its remedy."""

    tone: Tone
    what: str
    why: str
    source: str = ""
    command: str = ""
    reasons: tuple[str, ...] = ()


def lane_verdicts(build: Build) -> tuple[LaneVerdict, LaneVerdict]:
    if build.bundle.base is not None:
        return _of_head(build, "cpu"), _of_head(build, "gpu")
    return _cpu(build), _gpu(build)


def todos(build: Build) -> list[Todo]:
    """List everything to do, the worst first."""
    found = [*_hindered(build), *(_missing(build) if build.bundle.base is None else _missing_dataset(build))]
    return sorted(found, key=lambda todo: ("bad", "warn", "good").index(todo.tone))


def _cpu(build: Build) -> LaneVerdict:
    choose = command("slipway choose", build.bundle.path, "--engines", build.engines_path)
    if build.choice is not None:
        chosen = build.engine(build.choice.chosen)
        assert chosen is not None, "an opened choice names an engine that is there"
        return LaneVerdict("cpu", "good", (chosen,), build.choice.reason, build.file("choice.json"))
    wanted = listed(build.bundle.spec, lane="cpu")
    built = [engine for engine in build.engines if engine.target == "openvino" and engine.precision in wanted]
    passed = [engine.name for engine in built if engine.engine.may_be_served]
    if passed:
        reason = f"Not decided: {build.choice_flaw}. Passed but not measured: {', '.join(passed)}."
        return LaneVerdict("cpu", "warn", (), reason, build.file("choice.json"), choose)
    verdicts = ", ".join(f"{engine.name}: {engine.engine.verdict}" for engine in built) or "none is built"
    reason = f"No precision that the spec lists can be served ({verdicts})."
    return LaneVerdict("cpu", "bad", (), reason, build.file("*", "evaluation.json"), _compile(build))


def _of_head(build: Build, lane: LaneName) -> LaneVerdict:
    """The forms of a head that its base may be served with."""
    assert build.bundle.base is not None
    forms = [engine for engine in build.engines if LANES[engine.target] == lane]
    passed = tuple(form for form in forms if form.engine.may_be_served)
    verdicts = ", ".join(f"{form.name}: {form.engine.verdict}" for form in forms) or "none is made"
    reason = f"The form for the engine that serves {build.bundle.base.name}, if it passed ({verdicts})."
    tone: Tone = "good" if len(passed) == len(forms) > 0 else "warn"
    return LaneVerdict(lane, tone, passed, reason, build.file("*", "evaluation.json"))


def _gpu(build: Build) -> LaneVerdict:
    plans = [engine for engine in build.engines if engine.target == "tensorrt"]
    if not plans:
        return _fallback(build) or LaneVerdict("gpu", "warn", (), "No TensorRT plan.", "", _container(build))
    source = build.file("tensorrt-*", "manifest.json")
    verdicts = ", ".join(f"{plan.name}: {plan.engine.verdict}" for plan in plans)
    if build.plan_choices:
        chosen = [choice.chosen for choice in build.plan_choices]
        reason = " ".join(f"{choice.reason}." for choice in build.plan_choices)
        measured = build.file("choice-*.json")
        return LaneVerdict("gpu", "good", tuple(plan for plan in plans if plan.name in chosen), reason, measured)
    wanted = listed(build.bundle.spec, lane="gpu")
    passed = [plan.name for plan in plans if plan.precision in wanted and plan.engine.may_be_served]
    if passed:
        reason = f"Not decided: {build.plan_flaw}. Passed and to be measured: {', '.join(passed)}."
        choose = command("slipway choose", build.bundle.path, "--engines", build.engines_path, "--target", "tensorrt")
        return LaneVerdict("gpu", "warn", (), reason, source, choose)
    reason = f"Nothing that the spec lists can be served ({verdicts})."
    return _fallback(build) or LaneVerdict("gpu", "bad", (), reason, source, _container(build))


def _fallback(build: Build) -> LaneVerdict | None:
    """The engine of ONNX Runtime that is served without a plan; None if the spec wants none, or none passed."""
    if build.bundle.spec.serving.gpu.fallback == "none":
        return None
    passed = fallback_engine(build.bundle, build.engines_path)
    engine = None if passed is None else build.engine(passed.path.name)
    if engine is None:
        return None
    reason = f"serving.gpu.fallback: {NO_PLAN}. Its gate ran on {engine.engine.settings.provider}."
    return LaneVerdict("gpu", "good", (engine,), reason, build.file(engine.name, "manifest.json"), _container(build))


def _hindered(build: Build) -> Iterator[Todo]:
    for engine in build.engines:
        gate = None if engine.evaluation is None else engine.evaluation.gate
        if gate is None or gate.verdict == PASS:
            continue
        advice = (
            "Train or calibrate better, keep more layers in FP16 (sensitive_layers.max_steps), raise the spec's "
            "accuracy limits, or list another precision."
            if gate.verdict == FAIL
            else "Test on more images, or raise the spec's accuracy limits."
        )
        yield Todo(
            tone="bad" if gate.verdict == FAIL else "warn",
            what=f"{engine.name}: {gate.verdict}",
            why=f"It is never served. {advice}",
            reasons=tuple(_reasons(gate)),
            source=build.file(engine.name, "evaluation.json"),
        )


def _reasons(gate: AccuracyResult) -> Iterator[str]:
    overall, classes = gate.overall, gate.hindering
    if overall.verdict != PASS:
        yield f"Top-1: {_explain(gate, overall)}"
    flips, reference = gate.flips, gate.reference
    if flips.verdict != PASS:
        yield (
            f"Flips: {flips.verdict}: {flips.flips} of {flips.images} answers differ from FP32's, "
            f"{flips.flip_points:.2f} points, between {flips.flip_low_points:.2f} and {flips.flip_high_points:.2f}, "
            f"limit {flips.max_flip_points:g} (accuracy.max_flip_points)."
        )
    if reference.verdict != PASS:
        yield (
            f"FP32 itself is not proven better than chance, so no loss could show: its mean recall is "
            f"{reference.recall_points:.2f} points over {reference.kinds} kinds of images, chance is "
            f"{reference.chance_points:.2f}, and proof on these images takes {reference.proof_points:.2f}."
        )
    worst = sorted(classes, key=lambda label: (classes[label].verdict != FAIL, -classes[label].loss_points))
    for label in worst[:CLASSES_NAMED]:
        yield f"Class {label}: {_explain(gate, classes[label], comparisons=len(gate.classes))}"
    if len(worst) > CLASSES_NAMED:
        yield f"And {len(worst) - CLASSES_NAMED} more classes."


def _explain(gate: AccuracyResult, result: Comparison, *, comparisons: int = 1) -> str:
    low, middle, high = map(points, (result.loss_low_points, result.loss_points, result.loss_high_points))
    text = (
        f"{result.verdict}: {middle} points lost ({result.lost} lost, {result.gained} gained of {result.images} "
        f"images), between {low} and {high}, limit {result.max_loss_points:g}"
    )
    if result.verdict == TOO_FEW:
        least = images_to_prove(result.max_loss_points, error=(1 - gate.confidence) / comparisons / 2)
        text += f"; proof takes {least} images where none is lost"
    return text + "."


def _missing(build: Build) -> Iterator[Todo]:
    wanted = {"fp32", *build.bundle.spec.precisions}
    have = {engine.name for engine in build.engines}
    for precision in PRECISIONS:
        if precision != "fp8" and precision in wanted and f"openvino-{precision}" not in have:
            yield _missing_openvino(build, precision)
    targets = {engine.target for engine in build.engines}
    if "tensorrt" not in targets:
        why = "A plan is built on the GPU that serves it, in NVIDIA's image of the same release."
        yield Todo("warn", "No TensorRT plan", why, command=_container(build))
    for capability in sorted({str(e.compute_capability) for e in build.engines if e.target == "tensorrt"}):
        absent = [
            precision.upper()
            for precision in SERVED["gpu"]
            if precision in wanted
            and (precision != "fp8" or has_fp8(capability))
            and f"tensorrt-{precision}-sm{capability.replace('.', '')}" not in have
        ]
        if absent:
            what = f"No TensorRT plan of {', '.join(absent)} for compute capability {capability}"
            yield Todo("warn", what, "It was not compiled, or the compiler refused it.", command=_container(build))
    if "tensorrt_rtx" not in targets:
        why = "It would prove without a GPU that the graphs compile; it is never served."
        yield Todo("good", "No proof by TensorRT-RTX", why, command=_compile(build, "--target", "tensorrt_rtx"))
    yield from _missing_choice(build, targets)
    yield from _missing_dataset(build)


def _missing_dataset(build: Build) -> Iterator[Todo]:
    if build.dataset is None:
        why = "The bundle has no dataset.json, so flips are listed without their images."
        yield Todo("good", "No list of the data set", why, source="bundle")


def _missing_choice(build: Build, targets: Collection[str]) -> Iterator[Todo]:
    choose = command("slipway choose", build.bundle.path, "--engines", build.engines_path)
    if build.choice is None:
        if "openvino" in targets:
            yield Todo("warn", "No choice for the cpu lane", f"Because {build.choice_flaw}.", command=choose)
        return
    measured = {candidate.engine: candidate.manifest_sha256 for candidate in build.choice.candidates}
    wanted = listed(build.bundle.spec, lane="cpu")
    for engine in build.engines:
        served = engine.target == "openvino" and engine.precision in wanted
        if served and engine.engine.may_be_served and measured.get(engine.name) != engine.manifest_sha256:
            why = "It was compiled after choice.json was measured, and may be the fastest now."
            yield Todo("warn", f"{engine.name} was not measured", why, build.file("choice.json"), choose)


def _missing_openvino(build: Build, precision: str) -> Todo:
    what = f"No engine openvino-{precision}"
    if precision in ("int8", "fp16") and precision not in build.graphs:
        out = build.graphs_path / precision
        script = command("slipway quantize", build.bundle.path, "--precision", precision, "--out", out)
        why = f"There is no {precision.upper()} graph; slipway quantize says why if it fails."
        return Todo("warn", what, why, command=script)
    if precision == "bf16":
        return Todo("warn", what, "It was not compiled, or the processor lacks BF16.", command=_compile(build))
    return Todo("warn", what, "The spec lists it, but it was not compiled.", command=_compile(build))


def _compile(build: Build, *more: str) -> str:
    return command("slipway compile", *_paths(build), *more)


def _container(build: Build) -> str:
    return command("slipway container", "compile", *_paths(build))


def _paths(build: Build) -> tuple[str | Path, ...]:
    return build.bundle.path, "--graphs", build.graphs_path, "--out", build.engines_path
