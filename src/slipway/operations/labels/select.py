"""Chooses images for labels, each with a probability that is known exactly: the accuracy estimate divides by it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from slipway.contract.typed_file import Contract
from slipway.errors import DataError
from slipway.operations.watch.rows import Floats, Rows

Chosen = npt.NDArray[np.bool_]


class SelectSettings(Contract):
    """Shares of a day's labels. The rest, after `explore` and `novelty`, goes to doubtful images."""

    per_day: int = Field(default=200, ge=1)
    """Labels of each classifier that selections ask for in a day (UTC) at most."""
    explore: float = Field(default=0.35, gt=0, le=1)
    """Share of the labels that any image is as likely to get as any other. It bounds the weight of a label."""
    novelty: float = Field(default=0.25, ge=0, le=1)
    """Share of the labels for images far from every class mean."""

    @model_validator(mode="after")
    def _shares(self) -> "SelectSettings":
        if self.explore + self.novelty > 1:
            raise ValueError("explore and novelty together must be at most 1")
        return self


@dataclass(frozen=True)
class Selection:
    chosen: Chosen
    """`[n]`: whether an image gets a label."""
    probability: Floats
    """`[n]`: the probability with which each image was chosen, of those not chosen too; keep it with the row."""


def select(rows: Rows, *, labels: int, settings: SelectSettings, seed: int) -> Selection:
    """Choose `labels` of the rows; all of them where there are no more.

    Doubt is √(f (1 - f)) of the confidence f, the standard deviation of "correct" if f is right: probabilities
    proportional to it make the estimate of the accuracy most exact (Zrnic and Candès, Active statistical inference,
    ICML 2024). Novelty is the rank of the distance to the nearest class mean in the upper half, squared. A row with a
    value that is not finite counts as most doubtful and most novel.

    Raises:
        DataError: a negative number of labels.
    """
    if labels < 0:
        raise DataError(f"{labels} labels; give 0 or more")
    probability = probabilities(rows, labels=labels, settings=settings)
    return Selection(systematic(probability, seed=seed), probability)


def probabilities(rows: Rows, *, labels: int, settings: SelectSettings) -> Floats:
    """Return the probability of each row, `[n]`; they add up to `labels`, or are all 1."""
    rows_n = len(rows)
    if labels >= rows_n:
        return np.ones(rows_n)
    confidence = np.where(np.isfinite(rows.confidence), np.clip(rows.confidence, 0, 1), 0.5)
    distance = np.where(np.isfinite(rows.distance), rows.distance, np.inf)
    order = np.argsort(distance)
    rank = np.empty(rows_n)
    rank[order] = (np.searchsorted(distance[order], distance[order], side="right") - 0.5) / rows_n
    size = settings.explore * _spread(np.ones(rows_n))
    size += settings.novelty * _spread(np.square(np.maximum(2 * rank - 1, 0.0)))
    size += (1 - settings.explore - settings.novelty) * _spread(np.sqrt(confidence * (1 - confidence)))
    return _proportional(size, labels=labels)


def systematic(probability: Floats, *, seed: int) -> Chosen:
    """Choose rows with exactly these probabilities, and a fixed number of them where the probabilities add up to one.

    Source: Madow, Annals of Mathematical Statistics 20 (1949): in a random order, a row is chosen where the running sum
    passes u, u + 1, u + 2 ... for one uniform u.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(probability.size)
    sums = np.concatenate([[0.0], np.cumsum(probability[order])])
    sums = np.where(np.abs(sums - np.rint(sums)) < 1e-9 * max(1, probability.size), np.rint(sums), sums)
    passed = np.floor(sums + rng.random())
    chosen = np.zeros(probability.size, dtype=bool)
    chosen[order] = np.diff(passed) >= 1
    return chosen


def _spread(values: Floats) -> Floats:
    """Values that add up to 1; equal ones where all are 0."""
    total = float(values.sum())
    return values / total if total > 0 else np.full(values.size, 1 / max(values.size, 1))


def _proportional(size: Floats, *, labels: int) -> Floats:
    """Probabilities proportional to `size`, at most 1, that add up to `labels`.

    Rows that would have more than 1 get 1, and the others share the rest (Särndal, Swensson and Wretman, Model Assisted
    Survey Sampling, 1992, section 3.6.2).
    """
    certain = np.zeros(size.size, dtype=bool)
    while True:
        rest = labels - int(certain.sum())
        scaled = np.where(certain, 1.0, size * rest / size[~certain].sum())
        over = ~certain & (scaled >= 1)
        if not over.any():
            return scaled
        certain |= over
