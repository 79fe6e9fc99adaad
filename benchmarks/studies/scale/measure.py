"""Measures the time of an image on this machine, and how much a second busy core slows the first."""

import os
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from queue import Queue
from statistics import median
from typing import Any, NamedTuple

from benchmarks.studies.scale.result import Measured

CHUNK, CHUNKS, WARM = 10, 12, 5
PHOTOGRAPHS = 3
COPIED_BYTES = 64 * 2**20


def measured(backbone: str, made: Path, images: Sequence[bytes], photographs: Sequence[bytes]) -> Measured:
    """Measure interleaved chunks with one busy process and with two, on two cores."""
    context = get_context("spawn")
    asked: list[Any] = [context.SimpleQueue() for _ in range(2)]
    told: Any = context.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))
    started = [(core, Given(made, images, photographs), ask, told) for core, ask in zip(cores, asked, strict=False)]
    workers = [context.Process(target=_work, args=given, daemon=True) for given in started]
    for worker in workers:
        worker.start()
    found: dict[tuple[str, int], list[Any]] = {}
    kinds = ["images"] * CHUNKS + ["batches"] * 4 + ["copies"] * 4 + ["photographs"]
    for kind in ["warm", *kinds]:
        for busy in range(1, len(workers) + 1):
            for ask in asked[:busy]:
                ask.put(kind)
            found.setdefault((kind, busy), []).extend(told.get() for _ in range(busy))
    for ask in asked[: len(workers)]:
        ask.put("")
    for worker in workers:
        worker.join()
    return _summary(backbone, found, busy=len(workers))


def _summary(backbone: str, found: dict[tuple[str, int], list[Any]], *, busy: int) -> Measured:
    alone = [image for chunk in found["images", 1] for image in chunk]
    totals = {
        number: median(sum(image) for chunk in found["images", number] for image in chunk) for number in (1, busy)
    }
    copies = {number: found["copies", number] for number in range(1, busy + 1)}
    return Measured(
        backbone=backbone,
        precision="int8",
        preprocess_ms=tuple(round(image[0], 3) for image in alone),
        engine_ms=tuple(round(image[1], 3) for image in alone),
        batch_share=median(found["batches", 1]),
        photograph_ms=tuple(round(ms, 2) for chunk in found["photographs", 1] for ms in chunk),
        slowing=(totals[busy] / totals[1] - 1) / max(1, busy - 1),
        copied_gb_per_s={str(number): number * median(values) for number, values in copies.items()},
        processor_time=True,
    )


class Given(NamedTuple):
    made: Path
    images: Sequence[bytes]
    photographs: Sequence[bytes]


def _work(core: int, given: Given, asked: "Queue[str]", told: "Queue[Any]") -> None:
    os.sched_setaffinity(0, {core})
    from slipway.contract import Preprocess
    from slipway.steps.engine_openvino import Engine
    from slipway.steps.preprocess import Preprocessor

    config = Preprocess.read(given.made / "bundle/preprocess.json").model_dump()
    preprocessor = Preprocessor(config, max_batch_size=2, threads=1)
    engine = Engine(given.made / "engine/model.onnx", arithmetic="f32", threads=1)

    def image_ms(*encoded: bytes) -> tuple[float, float]:
        started = time.process_time()
        pixels, _ = preprocessor.run(encoded)
        middle = time.process_time()
        engine.run(pixels)
        return 1000 * (middle - started), 1000 * (time.process_time() - middle)

    number = 0
    while kind := asked.get():
        chunk = [given.images[(number + index) % len(given.images)] for index in range(CHUNK)]
        number += CHUNK
        if kind == "warm":
            told.put([image_ms(image) for image in chunk[:WARM]])
        elif kind == "images":
            told.put([image_ms(image) for image in chunk])
        elif kind == "batches":
            pairs = list(zip(chunk[::2], chunk[1::2], strict=True))
            one_by_one = [sum(image_ms(image)) for image in chunk]
            told.put(sum(sum(image_ms(*pair)) for pair in pairs) / sum(one_by_one))
        elif kind == "photographs":
            told.put([image_ms(photograph)[0] for photograph in (*given.photographs[:1], *given.photographs)][1:])
        else:
            told.put(_copied_gb_per_s())


def _copied_gb_per_s() -> float:
    import numpy as np

    source, target = np.ones(COPIED_BYTES, np.uint8), np.empty(COPIED_BYTES, np.uint8)
    np.copyto(target, source)
    started = time.process_time()
    for _ in range(8):
        np.copyto(target, source)
    return 8 * COPIED_BYTES / (time.process_time() - started) / 1e9
