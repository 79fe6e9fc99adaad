"""Rows of a journal as the watch reads them: what a network said of each image, without the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Columns of equal length. A value that is not finite is kept: it is evidence itself.

    Raises:
        DataError: the columns differ in length.
    """

    confidence: Floats
    """Calibrated probability of the predicted class."""
    distance: Floats
    """Distance of the embedding to the nearest class mean, see `ClassMeans`."""
    norm: Floats
    """Euclidean norm of the embedding."""
    class_id: Ints
    """Predicted class; -1 is `unknown`."""
    brightness: Floats | None = None
    """Mean of the image's pixels, 0 to 1; None where nobody measured it."""

    def __post_init__(self) -> None:
        shapes = {name: column.shape for name, column in self.columns().items()}
        if len(set(shapes.values())) != 1 or self.class_id.ndim != 1:
            raise DataError(f"columns of the shapes {shapes}; give one-dimensional columns of equal length")

    def __len__(self) -> int:
        return int(self.class_id.size)

    def columns(self) -> dict[str, Floats | Ints]:
        """The columns that are there, by name."""
        return {name: column for name, column in vars(self).items() if column is not None}

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, which have the same columns, in order; no rows for no part."""
        if not parts:
            nothing = np.empty(0)
            return cls(nothing, nothing, nothing, np.empty(0, np.int64))
        return cls(**{name: np.concatenate([part.columns()[name] for part in parts]) for name in parts[0].columns()})

    def take(self, index: Ints | slice) -> "Rows":
        brightness = None if self.brightness is None else self.brightness[index]
        return Rows(self.confidence[index], self.distance[index], self.norm[index], self.class_id[index], brightness)


@dataclass(frozen=True)
class ClassMeans:
    """Directions of the class means, seen from the mean of all embeddings."""

    centre: Floats
    """`[d]`: mean of all embeddings."""
    directions: Floats
    """`[classes, d]`, each of length 1 (or 0, for a mean that is the centre)."""

    @classmethod
    def of(cls, embeddings: Floats, class_ids: Ints) -> "ClassMeans":
        """Measure the means on embeddings `[n, d]` with known classes.

        Raises:
            DataError: no row was given.
        """
        if not len(embeddings):
            raise DataError("0 embeddings; give at least one of each class")
        centre = embeddings.mean(axis=0)
        means = [embeddings[class_ids == id_].mean(axis=0) for id_ in np.unique(class_ids)]
        return cls(centre, _unit(np.stack(means) - centre))

    def distance(self, embeddings: Floats) -> Floats:
        """Return 1 minus the largest cosine of an embedding `[n, d]` and a class mean, `[n]`, from 0 to 2.

        Both are seen from the centre. In the networks of the study `watch`, this tells a foreign class at least as well
        as the Euclidean distance in units of the spread within classes.
        """
        nearest: Floats = 1 - (_unit(embeddings - self.centre) @ self.directions.T).max(axis=1)
        return nearest


def rows_of(
    confidence: Floats, class_id: Ints, brightness: Floats, embedding: Floats | None, means: ClassMeans | None
) -> Rows:
    """Rows as the watch takes them. A network without an embedding has a distance and a norm of 0, which no bet uses.

    Where the reference has class means, rows without an embedding have values that are not numbers: this is evidence.
    """
    if means is None or not class_id.size:
        nothing = np.zeros(class_id.size)
        return Rows(confidence, nothing, nothing, class_id, brightness)
    if embedding is None or embedding.shape[1] != means.centre.size:
        missing = np.full(class_id.size, np.nan)
        return Rows(confidence, missing, missing, class_id, brightness)
    return Rows(confidence, means.distance(embedding), np.linalg.norm(embedding, axis=1), class_id, brightness)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths != 0)
