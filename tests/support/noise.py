"""Pictures that differ."""

import io

import numpy as np
from PIL import Image


def noise(seed: int, *, form: str = "PNG", side: int = 48) -> bytes:
    """A picture like no other, of soft patches, so that copies at another quality are near duplicates."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    image = Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()
