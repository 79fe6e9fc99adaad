"""Runs a split of the data set through the steps that Triton runs: guard, decoder and resize, then a network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from slipway.contract import DataError, Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.evaluation.labels import table
from slipway.steps import guard
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Forward = Callable[[Float], tuple[Float, Float]]
"""Maps `pixels_nchw` to (`logits_nc`, `embedding_nd`); the latter is `[n, 0]` for a network without an embedding."""
ServedNetwork = Callable[[Pixels], tuple[Float, Float]]
"""Network that normalises by itself: maps `pixels_nhwc_u8` to (`logits_nc`, `embedding_nd`)."""


@dataclass(frozen=True)
class Predictions:
    """The raw outputs for a sequence of images, in the same order."""

    images: Sequence[LabelledImage]
    logits_nc: Float
    embedding_nd: Float

    @property
    def truth_n(self) -> npt.NDArray[np.int64]:
        return np.array([image.class_id for image in self.images], np.int64)

    @property
    def truth_nc(self) -> npt.NDArray[np.bool_]:
        """Return whether each image has each label, `[n, classes]`."""
        return table([image.class_ids for image in self.images], classes=self.logits_nc.shape[1])


def predict(
    network: Forward,
    dataset: Dataset,
    images: Sequence[LabelledImage],
    *,
    preprocess: Preprocess,
    batch_size: int,
    what: str,
) -> Predictions:
    """Run `images` through the serving preprocess and `network`, with a progress bar named `what`.

    Raises:
        DataError: serving would refuse an image; the message names it.
    """
    served = behind_normalisation(network, preprocess)
    return predict_served(served, dataset, images, preprocess=preprocess, batch_size=batch_size, what=what)


def behind_normalisation(network: Forward, preprocess: Preprocess) -> ServedNetwork:
    """`network` behind the normalisation that an engine of it would have in its graph."""
    config = preprocess.model_dump()
    return lambda pixels_nhwc_u8: network(normalize(pixels_nhwc_u8, config))


def predict_served(
    network: ServedNetwork,
    dataset: Dataset,
    images: Sequence[LabelledImage],
    *,
    preprocess: Preprocess,
    batch_size: int,
    what: str,
) -> Predictions:
    """Compute the outputs of a network that normalises by itself; otherwise as `predict` does."""
    logits, embeddings = [], []
    encoded = ((image.path, dataset.load(image)) for image in images)
    batches = pixel_batches(encoded, preprocess=preprocess, batch_size=batch_size, total=len(images), what=what)
    for pixels_nhwc_u8 in batches:
        logits_nc, embedding_nd = network(pixels_nhwc_u8)
        logits.append(logits_nc)
        embeddings.append(embedding_nd)
    return Predictions(images, np.concatenate(logits), np.concatenate(embeddings))


def pixel_batches(
    encoded: Iterator[tuple[str, bytes]], *, preprocess: Preprocess, batch_size: int, total: int, what: str
) -> Iterator[Pixels]:
    """Preprocess pairs of name and encoded image as in serving; yields `pixels_nhwc_u8` `[<= batch_size, H, W, 3]`."""
    on = None if preprocess.decoder == "cpu" else 0  # `mixed` decodes on the first GPU
    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=batch_size, threads=1, device_id=on)
    with tqdm(total=total, desc=what, unit="image", leave=False, disable=None) as progress:
        while batch := list(islice(encoded, batch_size)):
            pixels_nhwc_u8, status_n = preprocessor.run([image for _, image in batch])
            for (name, _), status in zip(batch, status_n, strict=True):
                if status != guard.OK:
                    raise DataError(
                        f"{name}: {guard.STATUS_NAMES[status]}; serving would refuse it: repair or remove it"
                    )
            yield pixels_nhwc_u8
            progress.update(len(batch))
