"""Measures the parts of an image's time when only one client asks."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from benchmarks.studies.efficiency.sides import Parts, Side, Spent

CHUNK_IMAGES = 20


def one_by_one(sides: Mapping[str, Side], *, images: int, chunks: int) -> tuple[dict[str, Parts], dict[str, Spent]]:
    """Return medians over chunks of 20 images asked one by one, in which the sides take turns; and processor time.

    `rest` is the client's time less the parts: transport, scheduling, and time that no step accounts for. It is below
    zero if a step goes on after its answer has left it. Processor time is the mean over all chunks.
    """
    seen: dict[str, list[Parts]] = {side: [] for side in sides}
    spent: dict[str, list[Spent]] = {side: [] for side in sides}
    for number in tqdm(range(chunks), desc="one by one", leave=False, disable=None):
        asked = [(number * CHUNK_IMAGES + index) % images for index in range(CHUNK_IMAGES)]
        for name, side in sides.items():
            parts, spent_of_chunk = asyncio.run(side.parts(asked))
            spent[name].append(spent_of_chunk)
            parts["rest"] = parts["client"] - sum(ms for part, ms in parts.items() if part != "client")
            seen[name].append(parts)
    means = {side: {who: float(np.mean([row[who] for row in rows])) for who in rows[0]} for side, rows in spent.items()}
    return {side: medians(rows) for side, rows in seen.items()}, means


def medians(rows: Sequence[Parts]) -> Parts:
    return {part: float(np.median([row[part] for row in rows])) for part in rows[0]}
