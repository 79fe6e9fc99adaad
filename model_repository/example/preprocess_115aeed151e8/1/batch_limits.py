"""What the guard says of a batch of encoded images, and how many of them may be decoded at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import guard

MAX_BATCH_PIXELS = guard.DEFAULT_LIMITS.max_pixels
"""A decoder keeps the memory of its largest batch: eight images of 64 million pixels took 2 GB for good."""


def measure(images: Sequence[bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The status of each image, INT32 `[n]`, and the pixels that decoding it takes, INT64 `[n]`; 0 where refused."""
    measured_n2 = np.array([guard.measure(image) for image in images], np.int64).reshape(-1, 2)
    return measured_n2[:, 0].astype(np.int32), measured_n2[:, 1]


def pieces(declared_n: npt.NDArray[np.int64]) -> list[slice]:
    """The batch cut so that each piece declares `MAX_BATCH_PIXELS` pixels or fewer, or is one image."""
    cut, start = [], 0
    while start < len(declared_n):
        count = max(1, int((declared_n[start:].cumsum() <= MAX_BATCH_PIXELS).sum()))
        cut.append(slice(start, start + count))
        start += count
    return cut
