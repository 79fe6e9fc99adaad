"""Which images each batch of an epoch consists of, on each of the processes that share it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.contract import SpecError
from slipway.contract.dataset import LabelledImage

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """One process of those that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Among those of its machine; the number of its GPU."""


ALL = Share()


def shuffled(count: int, *, seed: int, epoch: int) -> Ids:
    """A permutation of `count` images, the same on every process, and in a run that was resumed."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def steps_per_epoch(count: int, *, batch_size: int, world_size: int = 1) -> int:
    """Batches of an epoch that has each of `count` images once; `batch_size` is that of all processes together.

    Raises:
        SpecError: the batch or the images cannot be shared among so many processes.
    """
    if batch_size % world_size or batch_size < 2 * world_size:
        raise SpecError(
            f"recipe.batch_size: {batch_size} given, for {world_size} processes together; write a multiple of "
            f"{world_size} from {2 * world_size} on"
        )
    if count < world_size:
        raise SpecError(f"compute: {world_size} processes, and only {count} images; use at most {count} of them")
    return -(-count // batch_size)


def batches(order: Ids, *, batch_size: int, share: Share = ALL) -> list[Ids]:
    """The batches of one process: together, those of all hold each image once, and each process has as many.

    They differ by one image at most, in place of a last one with what is left.
    """
    steps = steps_per_epoch(len(order), batch_size=batch_size, world_size=share.world_size)
    return np.array_split(order[share.rank :: share.world_size], steps)


def rare_classes(images: Sequence[LabelledImage], *, below: float) -> frozenset[int]:
    """Classes with fewer images than `below` times those of the largest one. Copies of one file count once."""
    counts = Counter(class_id for image in {i.sha256: i for i in images}.values() for class_id in image.class_ids)
    return frozenset(class_id for class_id, count in counts.items() if count < below * max(counts.values()))
