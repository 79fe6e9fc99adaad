"""Rows of a journal as the watch reads them: what a network said of each image, without the image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from slipway.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_AXES = 64
"""Axes along which embeddings are shortened. More of them changed little in the study `watch`."""


@dataclass(frozen=True)
class Rows:
    """Columns of equal length. A value that is not finite is kept: it is evidence itself.

    Raises:
        DataError: the columns differ in length.
    """

    confidence: Floats
    """Calibrated probability of the predicted class."""
    distance: Floats
    """Distance of the embedding to the nearest class mean, see `ClassDirections`."""
    norm: Floats
    """Euclidean norm of the embedding."""
    class_id: Ints
    """Predicted class; -1 is `unknown`."""
    brightness: Floats | None = None
    """Mean of the image's pixels over that of the predicted class, or the mean itself, 0 to 1, where the network has no
    class means; None where it was not measured."""

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
class ClassDirections:
    """Directions of the class means, seen from the mean of all embeddings, and the brightness of the classes' images.

    Along some axes, embeddings of one class differ much; there a difference says little. Every embedding is therefore
    shortened along these axes before angles are measured.
    """

    centre: Floats
    """`[d]`: mean of all embeddings."""
    directions: Floats
    """`[classes, d]` of the shortened means, each of length 1 (or 0, for a mean that is the centre)."""
    axes: Floats
    """`[axes, d]`, each of length 1: where embeddings of one class differ most."""
    shortened: Floats
    """`[axes]`: what is added along each axis, as a share of the length there; -1 to 0."""
    light: Floats
    """`[largest class id + 1]`: mean brightness of the images of each class; the mean of all where a class has none."""

    @classmethod
    def of(
        cls, embeddings: Floats, class_ids: Ints, brightness: Floats | None = None, *, most_axes: int = MOST_AXES
    ) -> "ClassDirections":
        """Measure the means on embeddings `[n, d]` with known classes, and the brightness `[n]` of their images.

        An axis with the variance v within classes is shortened by √(m / (v + m)), with m the mean variance over all
        directions that the images span: the whitening of linear discriminant analysis, with a covariance that is
        regularised since n may be smaller than d.

        Args:
            most_axes: 0 for plain angles, where the classes are not known but predicted.

        Raises:
            DataError: no row was given.
        """
        if not len(embeddings):
            raise DataError("0 embeddings; give at least one of each class")
        ids, index = np.unique(class_ids, return_inverse=True)
        means = np.stack([embeddings[index == place].mean(axis=0) for place in range(ids.size)])
        centre = embeddings.mean(axis=0)
        axes, shortened = _within(embeddings - means[index], most=min(most_axes, len(embeddings) - ids.size))
        plain = cls(centre, means - centre, axes, shortened, _light(class_ids, brightness))
        return replace(plain, directions=_unit(plain.seen(means)))

    def seen(self, embeddings: Floats) -> Floats:
        """Embeddings `[n, d]` from the centre, shortened along the axes."""
        moved = embeddings - self.centre
        seen: Floats = moved + ((moved @ self.axes.T) * self.shortened) @ self.axes
        return seen

    def distance(self, embeddings: Floats) -> Floats:
        """Return 1 minus the largest cosine of an embedding `[n, d]` and a class mean, `[n]`, from 0 to 2."""
        nearest: Floats = 1 - (_unit(self.seen(embeddings)) @ self.directions.T).max(axis=1)
        return nearest

    def relative(self, brightness: Floats, class_ids: Ints) -> Floats:
        """Brightness `[n]` over that of the predicted class; over the mean of all classes for `unknown`."""
        known = (class_ids >= 0) & (class_ids < self.light.size)
        light = np.where(known, self.light[np.where(known, class_ids, 0)], self.light.mean())
        relative: Floats = brightness / light
        return relative


def _within(residuals: Floats, *, most: int) -> tuple[Floats, Floats]:
    """The axes with the largest variance of residuals `[n, d]`, and how much each is shortened."""
    if most < 1 or not residuals.any():
        return np.empty((0, residuals.shape[1])), np.empty(0)
    _, lengths, axes = np.linalg.svd(residuals, full_matrices=False)
    variances = lengths**2 / len(residuals)
    mean = variances.mean()
    return axes[:most], np.sqrt(mean / (variances[:most] + mean)) - 1


def _light(class_ids: Ints, brightness: Floats | None) -> Floats:
    """Mean brightness by class id, without values that are not numbers; 1 for every class where none is known."""
    size = max(int(class_ids.max()) + 1, 1)
    known = np.zeros(class_ids.size, bool) if brightness is None else np.isfinite(brightness) & (class_ids >= 0)
    if brightness is None or not known.any() or brightness[known].mean() <= 0:
        return np.ones(size)
    sums = np.bincount(class_ids[known], weights=brightness[known], minlength=size)
    counts = np.bincount(class_ids[known], minlength=size)
    means = np.divide(sums, counts, out=np.zeros(size), where=counts > 0)
    return np.where(means > 0, means, brightness[known].mean())


def rows_of(
    confidence: Floats, class_id: Ints, brightness: Floats, embedding: Floats | None, means: ClassDirections | None
) -> Rows:
    """Rows as the watch takes them. A network without an embedding has a distance and a norm of 0, which no bet uses.

    Where the reference has class means, rows without an embedding have values that are not numbers: this is evidence.
    """
    if means is None or not class_id.size:
        nothing = np.zeros(class_id.size)
        return Rows(confidence, nothing, nothing, class_id, brightness)
    if embedding is None or embedding.shape[1] != means.centre.size:
        missing = np.full(class_id.size, np.nan)
        return Rows(confidence, missing, missing, class_id, means.relative(brightness, class_id))
    norm, relative = np.linalg.norm(embedding, axis=1), means.relative(brightness, class_id)
    return Rows(confidence, means.distance(embedding), norm, class_id, relative)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths != 0)
