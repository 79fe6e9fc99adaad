"""Images that the guard passes and the decoder refuses, found before the first epoch and not in the middle of one."""

from itertools import islice
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Preprocess
from slipway.contract.dataset import Dataset
from slipway.steps import guard
from slipway.steps.preprocess_dali import Preprocessor
from slipway.training.data.entries import raise_faults

BATCH, THREADS = 32, 2
JPEG = b"\xff\xd8"


def check_decodable(dataset: Dataset, preprocess: Preprocess) -> None:
    """Decode every image that is not a JPEG once, as serving does.

    The guard sees a JPEG's structure so well that none of 5,838 damaged ones, and none of those with fields changed on
    purpose, passed it and failed in the decoder (benchmarks/results/guard.json): those are not decoded here.

    Raises:
        DataError: the decoder refuses images, by name.
    """
    paths = [Path(dataset.root) / image.path for image in dataset.images]
    suspected = [path for path in paths if _start(path) != JPEG]
    if not suspected:
        return
    config = preprocess.model_dump() | {"input_height": 32, "input_width": 32}  # only whether it decodes is asked
    preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=THREADS)
    refused = []
    with tqdm(total=len(suspected), desc="decoding images", unit="image", leave=False, disable=None) as progress:
        rest = iter(suspected)
        while batch := list(islice(rest, BATCH)):
            _, status_n = preprocessor.run([path.read_bytes() for path in batch])
            refused += [path for path, status in zip(batch, status_n, strict=True) if status != guard.OK]
            progress.update(len(batch))
    raise_faults([str(path) for path in refused], what="images are refused by the decoder; repair or remove them")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(JPEG))
