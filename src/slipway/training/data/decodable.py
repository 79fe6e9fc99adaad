"""Finds images that pass the guard but not the decoder before the first epoch, not in the middle of one."""

import os
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Preprocess
from slipway.contract.dataset import Dataset
from slipway.steps import guard
from slipway.steps.preprocess import Preprocessor
from slipway.training.data.entries import raise_faults

BATCH = 32
DECODE_THREADS = min(2, max((os.cpu_count() or 1) - 1, 1))
"""Threads that decode. nvImageCodec uses one fewer than there are cores, and warns of more."""
JPEG = b"\xff\xd8"


def check_decodable(dataset: Dataset, preprocess: Preprocess) -> None:
    """Decode every image except JPEGs once, as serving does.

    The guard checks a JPEG's structure so closely that none of 5,838 damaged ones, and none with fields changed on
    purpose, passed it and then failed in the decoder (benchmarks/results/guard.json), so JPEGs are not decoded here.

    Raises:
        DataError: the decoder refuses images; the message names them.
    """
    paths = [Path(dataset.root) / image.path for image in dataset.images]
    suspected = [path for path in paths if _start(path) != JPEG]
    if not suspected:
        return
    config = preprocess.model_dump() | {"input_height": 32, "input_width": 32}  # the size does not matter here
    preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=DECODE_THREADS)
    refused = []
    with tqdm(total=len(suspected), desc="decoding images", unit="image", leave=False, disable=None) as progress:
        rest = iter(suspected)
        while batch := list(islice(rest, BATCH)):
            _, status_n = preprocessor.run([path.read_bytes() for path in batch])
            refused += [path for path, status in zip(batch, status_n, strict=True) if status != guard.OK]
            progress.update(len(batch))
    raise_faults([str(path) for path in refused], what="images that the decoder refuses; repair or remove them")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(JPEG))
