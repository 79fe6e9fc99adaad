"""The serving preprocess of one image as grey levels, the pixels before they are normalised."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from slipway.contract import Preprocess
from slipway.steps import guard
from slipway.steps.preprocess import Preprocessor
from tests.support.image_files import encode

Levels = npt.NDArray[np.int64]
MAX_BATCH = 8


@cache
def preprocessor(
    *, height: int = 32, width: int = 32, max_batch: int = MAX_BATCH, threads: int = 1, **options: Any
) -> Preprocessor:
    config = {"input_height": height, "input_width": width, **options}
    return Preprocessor(Preprocess.parse(config, source="test").model_dump(), max_batch_size=max_batch, threads=threads)


def levels(image: Image.Image | bytes, **options: Any) -> Levels:
    """Grey levels `[H, W, 3]` of one image that has to be good."""
    encoded = image if isinstance(image, bytes) else encode(image, "PNG")
    pixels_nhwc_u8, status_n = preprocessor(**options).run([encoded])
    assert status_n.tolist() == [guard.OK]
    found: Levels = pixels_nhwc_u8[0].astype(np.int64)
    return found


def as_levels(image: Image.Image) -> Levels:
    return np.asarray(image.convert("RGB"), np.int64)
