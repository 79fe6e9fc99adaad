"""Proof `dali`: the graph of `dali_graph.py` with its decoder on a GPU, and the two forms of the decode step.

It compares the isolated form with the CPU in grey levels after the whole preprocessing, checks statuses and neighbours
of damaged images, runs the native form as NVIDIA's backend runs `dali.py`, and measures images/s of both.
"""

import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.studies.gpu_proof.codec import PARITY_MEAN, PARITY_P99
from benchmarks.studies.gpu_proof.folder import ROOT, CorpusFile, Photograph, read_files, read_json
from benchmarks.studies.gpu_proof.report import Report

Pixels = npt.NDArray[np.uint8]
Run = Callable[[Sequence[bytes]], tuple[Pixels, npt.NDArray[np.int32]]]
BATCH, SPEED_BATCH, SPEED_S = 16, 32, 0.7
SAME = 2.0
"""Grey levels between two GPU paths of one image."""


def prove(inputs: Path, report: Report) -> None:
    config = read_json(inputs / "preprocess.json")
    files, facts = read_files(inputs / "corpus.npz", CorpusFile)
    photographs, about = read_files(inputs / "photographs.npz", Photograph)
    good = [file for file, fact in zip(files, facts, strict=True) if fact.damage is None]
    bad = [file for file, fact in zip(files, facts, strict=True) if fact.damage is not None]
    mixed = {**config, "decoder": "mixed" if report.device == "cuda" else "cpu"}
    cpu, run = isolated(config, "cpu", threads=8), isolated(config, report.device, threads=8)

    report.part("isolated form against the CPU")
    encodings = [fact.encoding for fact in about]
    reference = in_batches(cpu, photographs)[0]
    apart = levels(in_batches(run, photographs)[0], reference, encodings)
    report.measure("levels apart from the CPU", apart)
    for encoding, level in apart.items():
        near = level["mean"] < PARITY_MEAN and level["p99"] < PARITY_P99
        report.require(near, f"{encoding}: {level} grey levels from the CPU's pixels")
    plain = in_batches(without_fancy_upsampling(mixed), photographs)[0]
    report.measure("the same without fancy upsampling", levels(plain, reference, encodings))

    report.part("damaged images, cpu")
    report.measure("damaged images, cpu", isolation(cpu, good, bad))
    report.part("damaged images, isolated")
    found = isolation(run, good, bad)
    report.measure("damaged images, isolated", found)
    for wrong in ("harmed neighbours", "status depends on neighbours"):
        report.require(not found[wrong], f"isolated form: {wrong}: {found[wrong]}")
    statuses = in_batches(run, [photographs[0], b"", *photographs[1:3]])[1].tolist()
    report.require(statuses == [0, 1, 0, 0], f"isolated form: statuses of good, empty, good, good: {statuses}")

    report.part("native form")
    with native(mixed) as by_dali:
        apart = levels(in_batches(by_dali, good)[0], in_batches(run, good)[0], ["all"] * len(good))
        report.measure("native form, levels apart from the isolated form", apart["all"])
        near = apart["all"]["mean"] <= SAME
        report.require(near, f"native form: {apart['all']} grey levels from the isolated form on the same device")
        refused = [image for image in bad if cpu([image])[1][0]]
        report.measure("native form, after a bad image", after_a_bad_image(by_dali, refused[:1], photographs[0]))
    report.part("images/s")
    report.measure("images/s", speed(mixed, photographs, about, report.device))


def in_batches(run: Run, images: Sequence[bytes]) -> tuple[Pixels, npt.NDArray[np.int32]]:
    parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return np.concatenate([np.array(part[0]) for part in parts]), np.concatenate([part[1] for part in parts])


def levels(one: Pixels, other: Pixels, groups: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return absolute differences in grey levels by group: the mean, P99 and largest of the group's worst image."""
    found: dict[str, dict[str, float]] = {}
    for a, b, group in zip(one, other, groups, strict=True):
        apart = np.abs(a.astype(np.int16) - b)
        now = {"mean": float(apart.mean()), "p99": float(np.quantile(apart, 0.99)), "max": float(apart.max())}
        worst = found.setdefault(group, dict.fromkeys(now, 0.0))
        found[group] = {name: max(worst[name], round(value, 3)) for name, value in now.items()}
    return found


def isolation(run: Run, good: Sequence[bytes], bad: Sequence[bytes]) -> dict[str, int]:
    """Decode damaged images alone and among good ones, and report their statuses and the good ones' pixels."""
    rng, found = np.random.default_rng(0), Counter[str]()
    alone, _ = in_batches(run, good)
    single = [int(run([image])[1][0]) for image in bad]
    half = BATCH // 2
    for start in range(0, len(bad), half):
        beside = rng.integers(len(good), size=half).tolist()
        rows = list(range(start, min(start + half, len(bad))))
        images = [image for row, other in zip(rows, beside, strict=False) for image in (bad[row], good[other])]
        pixels, status_n = run(images)
        pixels = np.array(pixels)
        statuses = status_n[::2].tolist()
        found.update(f"status {status}" for status in statuses)
        found["status depends on neighbours"] += sum(a != single[row] for a, row in zip(statuses, rows, strict=True))
        for index, other in enumerate(beside[: len(rows)]):
            apart = levels(pixels[2 * index + 1][None], alone[other][None], ["it"])["it"]
            found["neighbours"] += 1
            found["harmed neighbours"] += bool(status_n[2 * index + 1]) or apart["mean"] > SAME
    return {"harmed neighbours": 0, "status depends on neighbours": 0, **found}


def without_fancy_upsampling(config: Mapping[str, Any]) -> Run:
    from nvidia.dali import fn, pipeline_def, types

    from slipway.steps.dali_graph import fit

    device_id = None if config["decoder"] == "cpu" else 0

    @pipeline_def(batch_size=BATCH, num_threads=8, device_id=device_id, prefetch_queue_depth=1)  # type: ignore[untyped-decorator, unused-ignore]
    def pipeline() -> Any:
        encoded = fn.external_source(name="encoded", batch=True)
        shape = fn.peek_image_shape(encoded)
        images = fn.decoders.image(
            encoded,
            device=config["decoder"],
            output_type=types.RGB,
            jpeg_fancy_upsampling=False,
            adjust_orientation=False,
        )
        return fit(images, config, shape=shape)

    built = pipeline()
    built.build()
    return lambda images: (
        run_pipeline(built, [np.frombuffer(image, np.uint8) for image in images]),
        np.zeros(len(images), np.int32),
    )


def run_pipeline(pipeline: Any, encoded: Sequence[npt.NDArray[np.uint8]]) -> Pixels:
    pipeline.feed_input("encoded", list(encoded))
    (pixels,) = pipeline.run()
    result: Pixels = np.array(pixels.as_cpu().as_array())
    return result


class native:
    """Run `dali.py` as NVIDIA's backend does: alone in a folder, guarded images padded with zeros."""

    def __init__(self, config: Mapping[str, Any], *, batch_size: int = SPEED_BATCH, threads: int = 8) -> None:
        self._config, self._sizes = config, {"batch_size": batch_size, "num_threads": threads, "hardware_jpeg": False}

    def __enter__(self) -> Run:
        self._folder = Path(tempfile.mkdtemp(prefix="gpu-proof-"))
        for code in ("repository/backends/decode/dali.py", "steps/dali_graph.py", "steps/geometry.py"):
            shutil.copy(ROOT / "src/slipway" / code, self._folder)
        (self._folder / "preprocess.json").write_text(json.dumps(self._config), encoding="utf-8")
        (self._folder / "pipeline.json").write_text(json.dumps(self._sizes), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("native_dali", self._folder / "dali.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        pipeline = module.pipeline(prefetch_queue_depth=1)
        pipeline.build()

        def run(images: Sequence[bytes]) -> tuple[Pixels, npt.NDArray[np.int32]]:
            from slipway.steps.guarded_batch import guarded_batch

            encoded_nl, status_n = guarded_batch(images)
            return run_pipeline(pipeline, list(encoded_nl)), status_n

        return run

    def __exit__(self, *_: object) -> None:
        sys.path.remove(str(self._folder))
        for name in ("dali_graph", "geometry"):
            sys.modules.pop(name, None)
        shutil.rmtree(self._folder)


def after_a_bad_image(run: Run, refused: Sequence[bytes], good: bytes) -> dict[str, str | float]:
    """Report the native form's answer to an image that passes the guard and not the decoder, and to the next batch."""
    found: dict[str, str | float] = {}
    for name, images in (("bad and good", [*refused, good]), ("the next", [good, good])):
        started = time.perf_counter()
        try:
            run(images)
            found[name] = "answered"
        except RuntimeError as error:
            found[name] = f"refused: {str(error).strip().splitlines()[0][:200]}"
        found[f"{name}, ms"] = round(1000 * (time.perf_counter() - started), 1)
    return found


def isolated(config: Mapping[str, Any], device: str, *, threads: int) -> Run:
    from slipway.steps.preprocess import Preprocessor

    step = Preprocessor(config, max_batch_size=SPEED_BATCH, threads=threads, device_id=0 if device == "cuda" else None)

    return step.run


def speed(
    mixed: Mapping[str, Any], photographs: Sequence[bytes], about: Sequence[Photograph], device: str
) -> dict[str, float]:
    """Measure images/s of whole batches of 4:2:0 JPEGs through each form, the copy to the CPU included."""
    found = {}
    side = min(fact.side for fact in about)
    chosen = [p for p, fact in zip(photographs, about, strict=True) if (fact.side, fact.encoding) == (side, "4:2:0")]
    batch = (chosen * SPEED_BATCH)[:SPEED_BATCH]
    for threads in (4, 8, 16) if device == "cuda" else (1,):
        with native(mixed, threads=threads) as run:
            found[f"native, {side} px, {threads} threads"] = per_second(run, batch, device)
        run = isolated(mixed, device, threads=threads)
        found[f"isolated, {side} px, {threads} threads"] = per_second(run, batch, device)
    return found


def per_second(run: Run, batch: Sequence[bytes], device: str) -> float:
    run(batch)
    took_s: list[float] = []
    end = time.monotonic() + (SPEED_S if device == "cuda" else 0)
    while len(took_s) < 3 or time.monotonic() < end:
        started = time.perf_counter()
        run(batch)
        took_s.append(time.perf_counter() - started)
    return round(len(batch) / float(np.median(took_s)), 1)
