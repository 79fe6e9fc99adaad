"""Chooses the images of an epoch: rare classes are repeated where the recipe asks for it."""

from collections.abc import Sequence

import numpy as np

from slipway.contract import SpecError
from slipway.contract.dataset import LabelledImage
from slipway.contract.imbalance import Balance
from slipway.training.learn.losses import count

LONGEST = 10_000_000
"""Most files of an epoch."""


def repeated(images: Sequence[LabelledImage], *, balance: Balance, classes: int, seed: int) -> list[LabelledImage]:
    """Repeat some of `images`: the loader shuffles and shards the resulting list and reads it once an epoch.

    The repeat factor r of a class is n_max / n (`equal`) or its square root; an image has the largest r of its classes,
    and without a label r is 1. A seeded draw decides the fraction of r. Equal lists and seeds give equal results, so a
    resumed run and every rank get the same list. Source: repeat factors of Gupta, Dollar and Girshick, "LVIS: A Dataset
    for Large Vocabulary Instance Segmentation", 2019, with n_max instead of a threshold.

    Raises:
        SpecError: the epoch would have over 10 million files.
    """
    if balance == "none":
        return list(images)
    counts_c = count(images, classes=classes)
    factor_c = counts_c.max() / np.maximum(counts_c, 1)
    if balance == "square_root":
        factor_c = np.sqrt(factor_c)
    factor_n = np.array([max((factor_c[c] for c in image.class_ids), default=1.0) for image in images])
    whole_n = np.floor(factor_n)
    drawn_n = np.random.default_rng(seed).random(len(images)) < factor_n - whole_n
    times_n = (whole_n + drawn_n).astype(np.int64)
    if times_n.sum() > LONGEST:
        milder = "recipe.balance: square_root, or " if balance == "equal" else ""
        raise SpecError(
            f"recipe.balance: {balance} would make an epoch of {times_n.sum():,} files out of {len(images):,}; the "
            f"limit is {LONGEST:,}: write {milder}recipe.loss.class_weights instead"
        )
    return [image for image, times in zip(images, times_n.tolist(), strict=True) for _ in range(times)]
