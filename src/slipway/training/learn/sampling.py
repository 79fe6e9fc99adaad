"""Chooses the images of an epoch: rare classes are repeated where the recipe asks for it."""

from collections.abc import Sequence

import numpy as np

from slipway.contract import SpecError
from slipway.contract.dataset import LabelledImage
from slipway.contract.imbalance import Balance
from slipway.training.learn.weighting import repeat_factors

LONGEST = 10_000_000
"""Most files of an epoch."""


def repeated(images: Sequence[LabelledImage], *, balance: Balance, classes: int, seed: int) -> list[LabelledImage]:
    """Repeat some of `images`: the loader shuffles and shards the resulting list and reads it once an epoch.

    A seeded draw decides the fraction of an image's repeat factor. Equal lists and seeds give equal results, so a
    resumed run and every rank get the same list.

    Raises:
        SpecError: the epoch would have over 10 million files.
    """
    if balance == "none":
        return list(images)
    factor_n = repeat_factors(images, balance=balance, classes=classes)
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
