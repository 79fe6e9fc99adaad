"""Where an image's time goes when nobody else asks, for efficiency.py."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np
from efficiency_sides import Parts, Side
from tqdm import tqdm

from slipway.benchmark.processes import snapshot

CHUNK_IMAGES = 20


def one_by_one(
    sides: Mapping[str, Side], *, images: int, chunks: int
) -> tuple[dict[str, Parts], dict[str, dict[str, float]]]:
    """Medians over chunks of 20 images asked one by one, in which the sides take turns; and processor time.

    `rest` is what the client sees over the parts: transport, scheduling, and what no step accounts for. Below zero
    where a step goes on after its answer has left it. Processor time is the mean of an image, in milliseconds, of the
    side's processes and of the client.
    """
    seen: dict[str, list[Parts]] = {side: [] for side in sides}
    spent_s = {side: {"server": 0.0, "client": 0.0} for side in sides}
    for number in tqdm(range(chunks), desc="one by one", leave=False, disable=None):
        asked = [(number * CHUNK_IMAGES + index) % images for index in range(CHUNK_IMAGES)]
        for name, side in sides.items():
            before, client_s = snapshot(side.pid), time.process_time()
            parts = asyncio.run(side.parts(asked))
            spent_s[name]["client"] += time.process_time() - client_s
            after = snapshot(side.pid)
            spent_s[name]["server"] += sum(after.cpu_s.values()) - sum(before.cpu_s.values())
            parts["rest"] = parts["client"] - sum(ms for part, ms in parts.items() if part != "client")
            seen[name].append(parts)
    asked_in_all = chunks * (CHUNK_IMAGES + 1)  # each chunk begins with one that is not timed
    processor = {side: {who: 1000 * s / asked_in_all for who, s in of.items()} for side, of in spent_s.items()}
    return {side: medians(rows) for side, rows in seen.items()}, processor


def medians(rows: Sequence[Parts]) -> Parts:
    return {part: float(np.median([row[part] for row in rows])) for part in rows[0]}
