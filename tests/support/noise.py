"""Pictures that differ."""

import numpy as np
from PIL import Image

from tests.support.image_files import encode


def noise(seed: int, *, form: str = "PNG", side: int = 48) -> bytes:
    """A picture like no other, of soft patches, so that copies at another quality are near duplicates."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    image = Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)
    return encode(image, form, **({"quality": 90} if form == "JPEG" else {}))
