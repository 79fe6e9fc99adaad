"""The gpu lane's first step: the images of one request as one padded tensor, and what the guard says of each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import guard
from .batch_limits import MAX_BATCH_PIXELS, measure

MAX_PADDED_BYTES = 8 * guard.DEFAULT_LIMITS.max_bytes
"""One large image makes every other of its request as large."""


def guarded_batch(images: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Make one tensor of encoded images for a decoder that must not meet a refused one.

    Returns:
        encoded_nl: UINT8 `[n, L]`, padded with zeros to the longest, which no decoder minds; a refused image is the
            placeholder, and a few good ones are mended (`guard.for_decoder`).
        status_n: INT32 `[n]`, the codes of `guard`.

    Raises:
        ValueError: together the images declare more than `MAX_BATCH_PIXELS`, or padded they take more than
            `MAX_PADDED_BYTES`.
    """
    status_n, declared_n = measure(images)
    if declared_n.sum() > MAX_BATCH_PIXELS:
        raise ValueError(
            f"{len(images)} images of {declared_n.sum():,} pixels in one request, and together they may have "
            f"{MAX_BATCH_PIXELS:,}; send fewer at once"
        )
    passed = [
        guard.for_decoder(image) if status == guard.OK else guard.PLACEHOLDER
        for image, status in zip(images, status_n.tolist(), strict=True)
    ]
    longest = max(map(len, passed), default=0)
    if len(passed) * longest > MAX_PADDED_BYTES:
        raise ValueError(
            f"{len(passed)} images of up to {longest} bytes in one request, and together they may take "
            f"{MAX_PADDED_BYTES // longest} times that; send fewer at once"
        )
    encoded_nl = np.zeros((len(passed), longest), np.uint8)
    for row, image in zip(encoded_nl, passed, strict=True):
        row[: len(image)] = np.frombuffer(image, np.uint8)
    return encoded_nl, status_n
