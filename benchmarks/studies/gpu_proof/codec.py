"""Proof `codec`: nvImageCodec on a GPU, over damaged images among good ones.

Does any image get pixels that are not its own while its decoding is reported good? Each image is decoded alone
and in two batches with other neighbours, and its pixels must not depend on them. Then: how far GPU pixels are from CPU
pixels, with chroma interpolated and not; and images/s by threads.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.studies.gpu_proof.folder import CorpusFile, Photograph, read_files
from benchmarks.studies.gpu_proof.report import Report

Pixels = npt.NDArray[np.uint8]
Decoded = Sequence[Pixels | None]
CPU_ONLY_DEVICE = -99999
BACKENDS: Mapping[str, tuple[str, ...]] = {
    "lane": ("GPU_ONLY", "HYBRID_CPU_GPU", "CPU_ONLY"),
    "cuda alone": ("GPU_ONLY", "HYBRID_CPU_GPU"),
    "hardware first": ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU", "CPU_ONLY"),
    "hardware alone": ("HW_GPU_ONLY",),
}
"""`lane` is what the isolated decode step allows. The hardware decoder comes last, since it may crash."""
SERVED = "lane"
MEAN_LEVELS, MAX_LEVELS = 1.0, 16.0
"""Grey levels by which two decodings of an image may differ. Two batches may take different kernels, whose rounding
differs by less."""
PARITY_MEAN, PARITY_P99 = 1.0, 8.0
BATCH, BLACK = 16, 3
WRONG = ("harmed neighbours", "status depends on neighbours", "pixels depend on neighbours", "foreign pixels", "black")
THREADS, SPEED_BATCH, SPEED_S = (1, 4, 8, 16), 32, 0.7


class Decoding:
    """One decoder of nvImageCodec, set up as in `steps/preprocess.py`, which needs DALI to be imported."""

    def __init__(self, backends: Iterable[str], *, device: str, threads: int = 4, fancy: bool = True) -> None:
        from nvidia import nvimgcodec

        kinds = nvimgcodec.BackendKind.__members__
        allowed = backends if device == "cuda" else ("CPU_ONLY",)
        self._codec = nvimgcodec
        self._decoder = nvimgcodec.Decoder(
            device_id=0 if device == "cuda" else CPU_ONLY_DEVICE,
            max_num_cpu_threads=threads,
            backends=[nvimgcodec.Backend(kinds[name]) for name in allowed],
            options=f":fancy_upsampling={int(fancy)}",
        )
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=True, color_spec=nvimgcodec.ColorSpec.SRGB, allow_any_depth=True
        )

    def on_device(self, images: Sequence[bytes]) -> list[Any]:
        from slipway.steps import guard

        streams = [self._codec.CodeStream(guard.for_decoder(image)) for image in images]
        return list(self._decoder.decode(streams, params=self._params))

    def run(self, images: Sequence[bytes]) -> list[Pixels | None]:
        """Decode images: RGB `UINT8 [h, w, 3]` of each, None for an image that could not be decoded."""
        found = [None if image is None else np.array(image.cpu()) for image in self.on_device(images)]
        return [pixels if pixels is None or pixels.dtype == np.uint8 else with_8_bits(pixels) for pixels in found]


def prove(inputs: Path, report: Report) -> None:
    """Measure good images first, then damaged JPEGs, then the other formats: each part is likelier to crash than the
    last."""
    photographs, about = read_files(inputs / "photographs.npz", Photograph)
    cpu = Decoding(("CPU_ONLY",), device="cpu")
    report.part("pixels against the CPU")
    report.measure("levels apart from the CPU", parity(photographs, about, cpu, report))
    report.part("images/s")
    report.measure("images/s", speed(photographs, about, report.device))
    files, facts = read_files(inputs / "corpus.npz", CorpusFile)
    formats = ["JPEG" if fact.encoding.startswith("JPEG") else "other formats" for fact in facts]
    for wanted in ("JPEG", "other formats"):
        chosen = [(f, fact) for f, fact, name in zip(files, facts, formats, strict=True) if name == wanted]
        good = [file for file, fact in chosen if fact.damage is None]
        bad = [file for file, fact in chosen if fact.damage is not None]
        report.part(f"{wanted}, reference on the CPU")
        references = {"good": one_by_one(cpu, good), "bad": one_by_one(cpu, bad)}
        refused = sum(pixels is None for pixels in references["bad"])
        report.measure(f"{wanted}, images", {"good": len(good), "damaged": len(bad), "refused by the CPU": refused})
        for backend, kinds in list(BACKENDS.items())[: None if report.device == "cuda" else 1]:
            report.part(f"{wanted}, {backend}")
            found = isolation(Decoding(kinds, device=report.device), good, bad, references)
            report.measure(f"{wanted}, {backend}", found)
            for wrong in WRONG if backend == SERVED else ():
                report.require(found[wrong] == 0, f"{wanted}, {backend}: {wrong}: {found[wrong]}")
    if report.device == "cuda":
        report.part("images/s of the hardware decoder")
        rates = speed(photographs, about, "cuda", backends=BACKENDS["hardware first"])
        report.measure("images/s, hardware first", rates)


def one_by_one(decoding: Decoding, images: Sequence[bytes]) -> list[Pixels | None]:
    return [decoding.run([image])[0] for image in images]


def isolation(
    decoding: Decoding, good: Sequence[bytes], bad: Sequence[bytes], references: Mapping[str, Decoded]
) -> dict[str, float | None]:
    """Decode damaged images, and good ones in their batches, and report the outcome."""
    alone = {"good": one_by_one(decoding, good), "bad": one_by_one(decoding, bad)}
    found: Counter[str] = Counter()
    seen: dict[int, list[Pixels | None]] = {row: [alone["bad"][row]] for row in range(len(bad))}
    for seed in (0, 1):  # two sets of neighbours
        before: list[Pixels | None] = []
        for members in batches(len(good), len(bad), seed=seed):
            decoded = decoding.run([(good if kind == "good" else bad)[row] for kind, row in members])
            for (kind, row), pixels in zip(members, decoded, strict=True):
                changed = not same(alone[kind][row], pixels)
                if kind == "bad":
                    seen[row].append(pixels)
                else:
                    found["neighbours"] += 1
                    found["harmed neighbours"] += changed
                if changed:
                    others = [other for other in (*decoded, *before) if other is not pixels]
                    found["foreign pixels"] += foreign(alone[kind][row], pixels, others)
            before = decoded
    for row, several in seen.items():
        first, reference = several[0], references["bad"][row]
        found["damaged, decoded"] += first is not None
        found["decoded, though the CPU refuses it"] += first is not None and reference is None
        found["refused, though the CPU decodes it"] += first is None and reference is not None
        found["status depends on neighbours"] += len({pixels is None for pixels in several}) > 1
        whole = [pixels for pixels in several if pixels is not None]
        found["pixels depend on neighbours"] += any(not same(whole[0], pixels) for pixels in whole[1:])
        found["black"] += any(black(pixels) for pixels in whole) and not black(reference)
        if first is not None and reference is not None:
            found["unlike the CPU's pixels"] += apart(first, reference)["mean"] > 8
    mine = [
        apart(a, b)["mean"]
        for a, b in zip(alone["good"], references["good"], strict=True)
        if a is not None and b is not None
    ]
    return {
        **{name: found[name] for name in WRONG},
        **found,
        "good, refused": sum(pixels is None for pixels in alone["good"]),
        "good, mean levels from the CPU": round(float(np.mean(mine)), 4) if mine else None,
    }


def batches(good: int, bad: int, *, seed: int) -> Iterator[list[tuple[str, int]]]:
    """Make batches of every damaged image once and as many good ones, in any order."""
    rng = np.random.default_rng(seed)
    order, half = rng.permutation(bad).tolist(), BATCH // 2
    for start in range(0, bad, half):
        members = [("bad", row) for row in order[start : start + half]]
        members += [("good", int(row)) for row in rng.integers(good, size=half)]
        yield [members[index] for index in rng.permutation(len(members))]


def apart(one: Pixels, other: Pixels) -> dict[str, float]:
    """Return absolute differences in grey levels. Images of different sizes differ everywhere."""
    if one.shape != other.shape:
        return {"mean": 255.0, "p99": 255.0, "max": 255.0}
    levels = np.abs(one.astype(np.int16) - other)
    return {"mean": float(levels.mean()), "p99": float(np.quantile(levels, 0.99)), "max": float(levels.max())}


def same(one: Pixels | None, other: Pixels | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    levels = np.abs(one.astype(np.int16) - other)
    return bool(levels.mean() <= MEAN_LEVELS and levels.max() <= MAX_LEVELS)


def foreign(own: Pixels | None, pixels: Pixels | None, others: Sequence[Pixels | None]) -> bool:
    """Whether most of the changed values equal, place for place in memory, those of another image of this batch or the
    last."""
    if pixels is None:
        return False
    now = pixels.reshape(-1).astype(np.int16)
    before = np.full_like(now, -255) if own is None or own.shape != pixels.shape else own.reshape(-1).astype(np.int16)
    changed = np.flatnonzero(np.abs(now - before) > MAX_LEVELS)
    for other in others:
        if other is not None:
            there = changed[changed < other.size]
            equal = np.abs(other.reshape(-1)[there].astype(np.int16) - now[there]) <= 2
            if equal.sum() > max(64, len(changed) / 2):
                return True
    return False


def with_8_bits(pixels: npt.NDArray[np.uint16]) -> Pixels:
    rounded: Pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rounded


def black(pixels: Pixels | None) -> bool:
    return pixels is not None and int(pixels.max()) <= BLACK


def parity(
    images: Sequence[bytes], about: Sequence[Photograph], cpu: Decoding, report: Report
) -> dict[str, dict[str, float]]:
    """Measure the mean, P99 and largest difference by encoding, with fancy upsampling on and off."""
    references = one_by_one(cpu, images)
    found: dict[str, dict[str, float]] = {}
    for fancy in (True, False):
        decoding = Decoding(BACKENDS[SERVED], device=report.device, fancy=fancy)
        decoded = one_by_one(decoding, images)
        for encoding in dict.fromkeys(fact.encoding for fact in about):
            rows = [row for row, fact in enumerate(about) if fact.encoding == encoding]
            pairs = [(decoded[row], references[row]) for row in rows]
            levels = [apart(a, b) for a, b in pairs if a is not None and b is not None]
            name = f"{encoding}, fancy upsampling {'on' if fancy else 'off'}"
            report.require(len(levels) == len(rows), f"{name}: {len(rows) - len(levels)} good images were refused")
            if levels:
                found[name] = {key: round(max(level[key] for level in levels), 3) for key in ("mean", "p99", "max")}
                if fancy:
                    near = found[name]["mean"] < PARITY_MEAN and found[name]["p99"] < PARITY_P99
                    report.require(near, f"{name}: {found[name]} grey levels from the CPU's pixels")
    return found


def speed(
    images: Sequence[bytes], about: Sequence[Photograph], device: str, *, backends: tuple[str, ...] = BACKENDS[SERVED]
) -> dict[str, float]:
    """Measure images/s of batches of 32 4:2:0 JPEGs that stay on the device, by side and threads."""
    found = {}
    for side in sorted({fact.side for fact in about}):
        chosen = [
            image for image, fact in zip(images, about, strict=True) if fact.side == side and fact.encoding == "4:2:0"
        ]
        batch = (chosen * SPEED_BATCH)[:SPEED_BATCH]
        for threads in THREADS if device == "cuda" else THREADS[:1]:
            decoding = Decoding(backends, device=device, threads=threads)
            found[f"{side} px, {threads} threads"] = round(per_second(decoding, batch, device), 1)
    return found


def per_second(decoding: Decoding, batch: Sequence[bytes], device: str) -> float:
    """Return the rate of the median batch."""
    import torch

    took_s: list[float] = []
    decoding.on_device(batch)  # warm-up
    end = time.monotonic() + (SPEED_S if device == "cuda" else 0)
    while len(took_s) < 3 or time.monotonic() < end:
        started = time.perf_counter()
        decoded = decoding.on_device(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        took_s.append(time.perf_counter() - started)
        del decoded
    return len(batch) / float(np.median(took_s))
