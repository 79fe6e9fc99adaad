"""Finds the training images that a network sees as most like one image, by the cosine of their embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.contract import Bundle, DataError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.evaluation.predict import Float, predict
from slipway.steps.engine_openvino import Engine

Embed = Callable[[Dataset, Sequence[LabelledImage]], Float]
"""Computes `embedding_nd` `[n, d]` of images of a data set."""
MOST_IMAGES = 2_000
_SEED = 0


@dataclass(frozen=True)
class Neighbour:
    image: LabelledImage
    label: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    found: tuple[Neighbour, ...]
    compared: int
    """Training images that were compared."""
    of: int
    """Training images of the data set."""


def nearest(
    bundle: Bundle, embedding: npt.NDArray[np.float64], *, count: int, embed: Embed | None = None
) -> Neighbours:
    """The `count` training images nearest to an embedding `[d]`, among at most 2,000 that are drawn with a fixed seed.

    Args:
        embed: embeds them; by default the bundle's FP32 graph does, and `embedding` may come from another precision of
            it. A head has no graph, and needs one.

    Raises:
        DataError: an image is missing or has changed, or the network has another embedding.
    """
    dataset = Dataset.read(bundle.path / DATASET)
    train = dataset.of("train")
    drawn = np.sort(np.random.default_rng(_SEED).permutation(len(train))[:MOST_IMAGES])
    images = [train[index] for index in drawn.tolist()]
    if not images:
        raise DataError(f"{bundle.path}: its data set has no image of the train split; leave --run out")
    embedded = (embed or _by_graph(bundle))(dataset, images).astype(np.float64)
    if embedded.shape[1] != embedding.size:
        raise DataError(
            f"{bundle.path}: embeddings of {embedded.shape[1]} numbers, and the row's has {embedding.size}; give the "
            "run that answered the row, or leave --run out"
        )
    lengths = np.linalg.norm(embedded, axis=1) * np.linalg.norm(embedding)
    cosine = np.divide(embedded @ embedding, lengths, out=np.zeros(len(images)), where=lengths != 0)
    order = np.argsort(-cosine, kind="stable")[:count]
    found = (Neighbour(images[i], dataset.labels[images[i].class_id], float(cosine[i])) for i in order.tolist())
    return Neighbours(tuple(found), len(images), len(train))


def _by_graph(bundle: Bundle) -> Embed:
    engine = Engine(Path(bundle.path / "model.onnx"), arithmetic="f32", threads=1)

    def embed(dataset: Dataset, images: Sequence[LabelledImage]) -> Float:
        what = "embedding images"
        found = predict(engine.run, dataset, images, preprocess=bundle.preprocess, batch_size=8, what=what)
        return found.embedding_nd

    return embed
