"""Applies Mixup and CutMix, by `timm.data.Mixup`, to batches of the train split."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from timm.data.mixup import Mixup, mixup_target

from slipway.contract.augmentation import Mix


class Mixing:
    """Mixes the images of a batch in pairs, the first with the last.

    Only the loss smooths labels: smoothing mixed targets in the loss equals timm's own smoothing.
    """

    def __init__(self, mix: Mix, *, classes: int, multilabel: bool = False) -> None:
        self._classes, self._multilabel = classes, multilabel
        self._mixup = Mixup(
            mixup_alpha=mix.mixup_alpha,
            cutmix_alpha=mix.cutmix_alpha,
            prob=mix.probability,
            switch_prob=mix.cutmix_probability,
            mode=mix.mode,
            label_smoothing=0.0,
            num_classes=classes,
            multi_label=multilabel,
        )

    def __call__(
        self, pixels_nchw: torch.Tensor, target: torch.Tensor, *, draw: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix `pixels_nchw`, in place. The last image of an odd batch stays as it is.

        Args:
            target: class ids `INT64 [n]`, or for multi-label `FLOAT [n, classes]`.
            draw: integers that determine every draw, such as seed, epoch, batch and rank.

        Returns:
            Pixels, and targets as `FLOAT [n, classes]`.
        """
        even = len(target) - len(target) % 2
        rest_nc = mixup_target(target[even:], self._classes, multi_label=self._multilabel)
        if not even:
            return pixels_nchw, rest_nc
        with _numpy_seeded(draw):
            _, mixed_nc = self._mixup(pixels_nchw[:even], target[:even])
        return pixels_nchw, torch.cat([mixed_nc, rest_nc])


@contextmanager
def _numpy_seeded(draw: Sequence[int]) -> Iterator[None]:
    """Seed numpy's global generator, which timm draws from, for the block: a resumed run then draws the same."""
    before = np.random.get_state()
    np.random.seed(list(draw))
    try:
        yield
    finally:
        np.random.set_state(before)
