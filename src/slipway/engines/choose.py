"""Chooses the cpu lane's precision: the fastest that passed the gate, timed from encoded bytes to the answer."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from slipway.contract import Bundle, Choice, Engine, GateError
from slipway.contract.choice import FILE_NAME, Candidate
from slipway.contract.evidence.origin import Machine, versions
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.selection import SERVED
from slipway.steps import engine_openvino
from slipway.steps.postprocess import Postprocessor
from slipway.steps.preprocess_dali import Preprocessor
from slipway.system.files import sha256_file
from slipway.system.targets import check_file, write_file

REFERENCE = "openvino-fp32"
WARM_UP_ROUNDS = 2


def choose(bundle: Bundle, engines: Path, *, rounds: int, images_per_round: int) -> Choice:
    """Measure `engines/openvino-*` of the spec's precisions against each other and write `engines/choice.json`.

    Every round sends the same images one by one through each engine in turn, in a rotating order, so that a
    disturbance affects all of them. FP32 is measured as the reference even if the spec does not list it.

    Raises:
        ManifestError: an engine is missing or changed, or belongs to another bundle.
        GateError: no engine that the spec lists passed its gate.
    """
    check_file(engines / FILE_NAME, mark=("chosen",), what="a choice between engines")
    listed = [f"openvino-{precision}" for precision in bundle.spec.precisions if precision in SERVED["cpu"]]
    built = [REFERENCE, *(name for name in listed if name != REFERENCE and (engines / name).is_dir())]
    opened = {name: Engine.open(engines / name, bundle=bundle) for name in built}
    passed = [name for name in listed if name in opened and opened[name].may_be_served]
    if not passed:
        verdicts = {name: opened[name].verdict if name in opened else "not built" for name in listed}
        raise GateError(
            f"{engines}: none of the spec's precisions can be served on the cpu lane: {verdicts or 'none is listed'}; "
            "see their evaluation.json, or list another in the spec (int8, bf16, fp32)"
        )
    measured = sorted({REFERENCE, *passed})
    runs = {name: _pipeline(bundle, opened[name]) for name in measured}
    images = [encoded for _, encoded in bundle.load_calibration()][:images_per_round]
    times_ms = interleave(runs, images, rounds=rounds)
    candidates = {name: _candidate(opened[name], times_ms, name) for name in opened}
    fastest = min(passed, key=lambda name: candidates[name].median_ms or np.inf)
    choice = Choice(
        bundle=bundle.id,
        chosen=fastest,
        reason=_reason(fastest, candidates, listed),
        candidates=tuple(candidates[name] for name in sorted(candidates)),
        rounds=rounds,
        images_per_round=len(images),
        threads=bundle.spec.serving.threads,
        machine=Machine.this().cpu,
        versions=versions(("openvino", "nvidia-dali-cuda130")),
    )
    write_file(engines / FILE_NAME, choice.to_json())
    return choice


def _pipeline(bundle: Bundle, engine: Engine) -> Callable[[bytes], None]:
    """The cpu lane's three steps in this process."""
    serving = bundle.spec.serving
    preprocessor = Preprocessor(bundle.preprocess.model_dump(), max_batch_size=1, threads=serving.threads)
    network = engine_openvino.Engine(
        engine.path / "model.onnx", arithmetic=engine.settings.arithmetic, threads=serving.threads
    )
    postprocessor = Postprocessor(engine.decision.model_dump(), bundle.labels)

    def run(encoded: bytes) -> None:
        pixels_nchw, status_n = preprocessor.run([encoded])
        logits_nc, embedding_nd = network.run(pixels_nchw)
        postprocessor.run(logits_nc, status_n, embedding_nd)

    return run


def interleave(
    runs: dict[str, Callable[[bytes], None]], images: Sequence[bytes], *, rounds: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Median milliseconds per image for each of `runs` and each round, after two warm-up rounds."""
    names = sorted(runs)
    medians_ms: dict[str, list[float]] = {name: [] for name in names}
    for number in tqdm(range(WARM_UP_ROUNDS + rounds), desc="rounds", leave=False, disable=None):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times_ms = []
            for encoded in images:
                started = time.perf_counter()
                runs[name](encoded)
                times_ms.append(1000 * (time.perf_counter() - started))
            if number >= WARM_UP_ROUNDS:
                medians_ms[name].append(float(np.median(times_ms)))
    return {name: np.array(values) for name, values in medians_ms.items()}


def _candidate(engine: Engine, times_ms: dict[str, npt.NDArray[np.float64]], name: str) -> Candidate:
    numbers: dict[str, float] = {}
    if name in times_ms:
        low, middle, high = np.percentile(times_ms[REFERENCE] / times_ms[name], [10, 50, 90]).tolist()
        median_ms = float(np.median(times_ms[name]))
        numbers = {"median_ms": median_ms, "speed_to_fp32": middle, "speed_low": low, "speed_high": high}
    return Candidate(
        engine=name,
        manifest_sha256=sha256_file(engine.path / MANIFEST),
        precision=engine.settings.precision,
        verdict=engine.verdict,
        **numbers,
    )


def _reason(chosen: str, candidates: dict[str, Candidate], listed: Sequence[str]) -> str:
    best = candidates[chosen]
    text = (
        f"{chosen}: the fastest listed engine that passed the gate, {best.median_ms:.2f} ms an image, "
        f"{best.speed_to_fp32:.2f} times FP32's speed ({best.speed_low:.2f} to {best.speed_high:.2f})"
    )
    return "; ".join([text, *(_beside(name, candidates.get(name)) for name in listed if name != chosen)])


def _beside(name: str, candidate: Candidate | None) -> str:
    if candidate is None:  # such as BF16 on a processor without it
        return f"{name} was not built"
    return f"{name} {candidate.speed_to_fp32:.2f} times" if candidate.median_ms else f"{name} did not pass"
