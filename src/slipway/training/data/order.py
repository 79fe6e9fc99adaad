"""Assigns the images of an epoch to batches, on each of the processes that share it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.contract import SpecError
from slipway.contract.dataset import LabelledImage

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingProcess:
    """One of the processes that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Rank among the processes of its machine; also the index of its GPU."""


ALL = TrainingProcess()


def shuffled(count: int, *, seed: int, epoch: int) -> Ids:
    """Return a permutation of `count` images, the same on every process and in a resumed run."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def steps_per_epoch(count: int, *, batch_size: int, world_size: int = 1) -> int:
    """Count the batches of an epoch of `count` images; `batch_size` is that of all processes together.

    Raises:
        SpecError: the batch or the images cannot be divided among so many processes.
    """
    if batch_size % world_size or batch_size < 2 * world_size:
        raise SpecError(
            f"recipe.batch_size: {batch_size} given for {world_size} processes together; write a multiple of "
            f"{world_size}, at least {2 * world_size}"
        )
    if count < world_size:
        raise SpecError(f"compute: {world_size} processes for {count} images; use at most {count} processes")
    return -(-count // batch_size)


def batches(order: Ids, *, batch_size: int, process: TrainingProcess = ALL) -> list[Ids]:
    """Return the batches of one process. All processes have as many; together they hold each image once.

    Batch sizes differ by at most one image, so no small batch is left at the end.
    """
    steps = steps_per_epoch(len(order), batch_size=batch_size, world_size=process.world_size)
    return np.array_split(order[process.rank :: process.world_size], steps)


def rare_classes(images: Sequence[LabelledImage], *, below: float) -> frozenset[int]:
    """Return the classes with fewer images than `below` times the largest class. Copies of one file count once."""
    counts = Counter(class_id for image in {i.sha256: i for i in images}.values() for class_id in image.class_ids)
    return frozenset(class_id for class_id, count in counts.items() if count < below * max(counts.values()))
