"""Embeddings of images by the engines of a base, kept in the base's run: each image is decoded and embedded once."""

import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from slipway.contract import CompileError
from slipway.contract.base_bundle import Base
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.evidence.origin import versions
from slipway.contract.preprocess import PIXEL_LIBRARIES, Decoder
from slipway.evaluation.predict import Float, Predictions, ServedNetwork, pixel_batches
from slipway.steps.head import Head

FOLDER = "embeddings"
LIBRARIES = ("openvino", "onnxruntime")
"""Libraries that an embedding depends on, beside the engine."""
BUSY_S = 60.0
"""Seconds to wait while another process writes to a cache."""
KEYS = 500
"""Images asked for in one query."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings by one engine, by sha256 of the image."""

    vectors: Mapping[str, Float]

    def of(self, images: Sequence[LabelledImage]) -> Float:
        """Return `embedding_nd` `[n, d]` of images."""
        return np.stack([self.vectors[image.sha256] for image in images])

    def answer(self, head: Head, images: Sequence[LabelledImage]) -> Predictions:
        """The raw outputs of `head` for images."""
        embedding_nd = self.of(images)
        return Predictions(images, head.run(embedding_nd), embedding_nd)


class EmbeddingSource(Protocol):
    """An object that computes the embeddings of an engine."""

    @property
    def key(self) -> str:
        """Name of its kept embeddings, which says which base and engine, and so how images are prepared."""
        ...

    @property
    def size(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def decoder(self) -> Decoder: ...

    @property
    def open(self) -> Callable[[], ServedNetwork]:
        """Loads it; called where the cache has not got everything."""
        ...


def embed(
    base: Base,
    sources: Mapping[str, EmbeddingSource],
    dataset: Dataset,
    wanted: Sequence[LabelledImage],
    *,
    cache: Path,
) -> dict[str, Embeddings]:
    """Embeddings of the `wanted` images of `dataset` by each source, under its name.

    Args:
        cache: folder of the embeddings that are kept.

    Raises:
        DataError: an image is missing or changed, or serving would refuse it.
        CompileError: an embedding is not finite.
    """
    images = {image.sha256: image for image in wanted}
    names = {source.key: name for name, source in sources.items()}
    by_key = {source.key: source for source in sources.values()}  # plans of one graph may have one stand-in
    caches = {
        key: Cache(cache / f"{key}.sqlite", size=source.size, decoder=source.decoder) for key, source in by_key.items()
    }
    found = {key: kept.read(list(images)) for key, kept in caches.items()}
    lacking = [key for key in by_key if len(found[key]) < len(images)]
    for decoder in sorted({by_key[key].decoder for key in lacking}):
        alike = [key for key in lacking if by_key[key].decoder == decoder]
        missing = [image for sha256, image in images.items() if any(sha256 not in found[key] for key in alike)]
        networks = {key: by_key[key].open() for key in alike}
        for key, batch, embedding_nd in _run(base, networks, dataset, missing, decoder=decoder):
            _check_finite(names[key], batch, embedding_nd)
            fresh = {image.sha256: row for image, row in zip(batch, embedding_nd, strict=True)}
            caches[key].write(fresh)
            found[key].update(fresh)
    return {name: Embeddings(found[source.key]) for name, source in sources.items()}


def _run(
    base: Base,
    networks: Mapping[str, ServedNetwork],
    dataset: Dataset,
    images: Sequence[LabelledImage],
    *,
    decoder: Decoder,
) -> Iterator[tuple[str, Sequence[LabelledImage], Float]]:
    """Yield every batch of images through every network, decoded once. The networks take turns: OpenVINO's first calls,
    made from two threads at once, can wait for each other for ever."""
    if not images:
        return
    size = base.spec.serving.common_batch_size
    preprocess = base.preprocess.model_copy(update={"decoder": decoder})
    encoded = ((image.path, dataset.load(image)) for image in images)
    batches = pixel_batches(encoded, preprocess=preprocess, batch_size=size, total=len(images), what="embeddings")
    for number, pixels_nhwc_u8 in enumerate(batches):
        for name, network in networks.items():
            yield name, images[number * size : (number + 1) * size], network(pixels_nhwc_u8)[1].copy()


def _check_finite(name: str, batch: Sequence[LabelledImage], embedding_nd: Float) -> None:
    broken = [image.path for image, row in zip(batch, embedding_nd, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise CompileError(
            f"{name}: the embedding of {', '.join(broken)} is not finite; this precision does not suit the backbone: "
            "leave it out of the base's precisions"
        )


class Cache:
    """A file of embeddings by one engine. Several processes may use it; whatever is wrong with it costs time alone.

    Args:
        decoder: where the images are decoded.
        size: length of an embedding. A kept one of another length, or whose checksum is wrong, shows damage.
    """

    def __init__(self, path: Path, *, size: int, decoder: Decoder) -> None:
        self.path, self.size, self.kept = path, size, True
        used = versions((*LIBRARIES, *PIXEL_LIBRARIES[decoder]))
        libraries = ", ".join(f"{name} {version}" for name, version in used.items())
        self.made_by = f"{path.stem}: {libraries}"  # a file that was copied or renamed keeps the name of its engine

    def read(self, keys: Sequence[str]) -> dict[str, Float]:
        """Return the kept embeddings of the images with these sha256, by sha256."""
        found: dict[str, Float] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database:
                for start in range(0, len(keys), KEYS):
                    asked = keys[start : start + KEYS]
                    marks = ", ".join("?" * len(asked))
                    query = f"SELECT image, embedding, checksum FROM kept WHERE made_by = ? AND image IN ({marks})"
                    rows = database.execute(query, (self.made_by, *asked))
                    found.update((image, self._vector(*rest)) for image, *rest in rows)
        except (sqlite3.OperationalError, OSError) as error:
            self._give_up(error)
        except (sqlite3.DatabaseError, ValueError) as error:
            return self._start_anew(error)
        return found

    def write(self, vectors: Mapping[str, Float]) -> None:
        """Keep these embeddings."""
        if not self.kept:
            return
        rows = [(key, self.made_by, data := row.tobytes(), zlib.crc32(data)) for key, row in vectors.items()]
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.DatabaseError, OSError) as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=BUSY_S)
        database.execute(
            "CREATE TABLE IF NOT EXISTS kept (image TEXT, made_by TEXT, embedding BLOB, checksum INTEGER, "
            "PRIMARY KEY (image, made_by))"
        )
        return database

    def _vector(self, data: object, checksum: object) -> Float:
        if not isinstance(data, bytes) or len(data) != 4 * self.size or zlib.crc32(data) != checksum:
            raise ValueError("an embedding is not what was written")
        return np.frombuffer(data, np.float32)

    def _start_anew(self, error: Exception) -> dict[str, Float]:
        print(f"{self.path}: damaged ({error}); its embeddings are computed again", file=sys.stderr)
        try:
            for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
                path.unlink(missing_ok=True)
        except OSError as failed:
            self._give_up(failed)
        return {}

    def _give_up(self, error: Exception) -> None:
        print(f"{self.path}: embeddings are not kept: {error}", file=sys.stderr)
        self.kept = False
