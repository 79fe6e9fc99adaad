"""Weighs classes by their number of images: for a loss, and for the images of an epoch, which repeats rare classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slipway.contract import SpecError
from slipway.contract.dataset import LabelledImage
from slipway.contract.decision import Task
from slipway.contract.recipe import Balance, Loss

BETA = 0.999
Floats = npt.NDArray[np.float64]
LONGEST = 10_000_000
"""Most files of an epoch."""


def class_weights(loss: Loss, *, task: Task, images: Sequence[LabelledImage], classes: int) -> Floats:
    """Return `[classes]`: the weight of an image of each class; for multi-label, of a label's presence against absence.

    Let w(n) = 1/n (inverse_frequency), or w(n) = (1 - beta) / (1 - beta^n), one over the effective number of n images
    (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019). A multi-class weight is w(n_c),
    scaled so that the mean over the images is 1; a multi-label weight is w(n_c) / w(images - n_c). A class without
    images gets the weight of a class with one.
    """
    counts_c = np.maximum(count(images, classes=classes), 1).astype(np.float64)

    def weight(n: Floats) -> Floats:
        if loss.class_weights == "inverse_frequency":
            return 1 / n
        beta = BETA if loss.beta is None else loss.beta
        return (1 - beta) / (1 - beta**n)

    if task == "multilabel":
        return weight(counts_c) / weight(np.maximum(len(images) - counts_c, 1))
    weights_c = weight(counts_c)
    scaled_c: Floats = weights_c * counts_c.sum() / (weights_c * counts_c).sum()
    return scaled_c


def count(images: Sequence[LabelledImage], *, classes: int) -> npt.NDArray[np.int64]:
    """Count the images of each class, `[classes]`."""
    found = Counter(class_id for image in images for class_id in image.class_ids)
    return np.array([found[class_id] for class_id in range(classes)], np.int64)


def repeat_factors(images: Sequence[LabelledImage], *, balance: Balance, classes: int) -> Floats:
    """Return `[n]`: how often an epoch shows each image, on average.

    The repeat factor of a class is n_max / n (`equal`) or its square root; an image has the largest one of its classes,
    and 1 without a label. Source: repeat factors of Gupta, Dollar and Girshick, "LVIS: A Dataset for Large Vocabulary
    Instance Segmentation", 2019, with n_max instead of a threshold.
    """
    if balance == "none":
        return np.ones(len(images))
    counts_c = count(images, classes=classes)
    factor_c = counts_c.max() / np.maximum(counts_c, 1)
    if balance == "square_root":
        factor_c = np.sqrt(factor_c)
    return np.array([max((factor_c[c] for c in image.class_ids), default=1.0) for image in images])


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
