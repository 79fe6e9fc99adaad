"""Rows of a journal as the watch reads them: what a network said of each image, without the image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Four columns of equal length. A value that is not finite is kept: it is evidence itself.

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

    def __post_init__(self) -> None:
        lengths = {name: column.shape for name, column in vars(self).items()}
        if len(set(lengths.values())) != 1 or self.class_id.ndim != 1:
            raise DataError(f"columns of the shapes {lengths}; give four one-dimensional columns of equal length")

    def __len__(self) -> int:
        return int(self.class_id.size)

    def take(self, index: Ints | slice) -> "Rows":
        return Rows(self.confidence[index], self.distance[index], self.norm[index], self.class_id[index])


@dataclass(frozen=True)
class ClassMeans:
    """Mean embedding of each class, in units of the spread within classes."""

    means: Floats
    """`[classes, d]`, divided by `spread`."""
    spread: Floats
    """`[d]`: standard deviation within classes, at least a hundredth of its mean over all components."""

    @classmethod
    def of(cls, embeddings: Floats, class_ids: Ints) -> "ClassMeans":
        """Measure the means on embeddings `[n, d]` with known classes.

        Raises:
            DataError: no row was given.
        """
        if not len(embeddings):
            raise DataError("0 embeddings; give at least one of each class")
        ids, index = np.unique(class_ids, return_inverse=True)
        means = np.stack([embeddings[class_ids == id_].mean(axis=0) for id_ in ids])
        spread = np.sqrt(((embeddings - means[index]) ** 2).mean(axis=0))
        spread = np.maximum(spread, 0.01 * spread.mean() or 1.0)
        return cls(means / spread, spread)

    def distance(self, embeddings: Floats) -> Floats:
        """Return the Euclidean distance of each embedding `[n, d]` to the nearest mean, `[n]`."""
        scaled = embeddings / self.spread
        squares = (scaled**2).sum(axis=1)[:, None] - 2 * scaled @ self.means.T + (self.means**2).sum(axis=1)
        nearest: Floats = np.sqrt(np.maximum(squares.min(axis=1), 0))
        return nearest
