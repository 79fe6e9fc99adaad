"""Makes photographs of a telephone's size from scikit-image's."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from benchmarks.studies.study import load_photographs, scikit_image

NOISE = 3.0
"""Standard deviation in grey levels. Enlarged photographs are smooth, and a sensor is not: files become 3 to 4 MB."""


def pictures(size_wh: tuple[int, int], *, seed: int) -> Iterator[Image.Image]:
    """Return every photograph, cut and resized to `size_wh`, with noise."""
    rng = np.random.default_rng(seed)
    for photograph in load_photographs(scikit_image()).values():
        fitted = ImageOps.fit(photograph, size_wh, Image.Resampling.LANCZOS)
        noisy = np.asarray(fitted, np.float32) + rng.normal(0, NOISE, (*size_wh[::-1], 1)).astype(np.float32)
        yield Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, *, progressive: bool = False) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, progressive=progressive)
    return file.getvalue()
