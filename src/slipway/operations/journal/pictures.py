"""Size, format and brightness of an image that the server has accepted."""

import base64
import io
import warnings
from dataclasses import dataclass

import numpy as np

from slipway.errors import requiring

with requiring("pillow", extra="operate"):
    from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM")
_SIDE = 256


@dataclass(frozen=True)
class Picture:
    """Measures of an image for the watch; None where the image cannot be read."""

    format: str | None = None
    width: int | None = None
    height: int | None = None
    brightness: float | None = None
    """Mean of all pixels and of red, green and blue, 0 to 1."""


def measure(content: bytes) -> Picture:
    """Look at an encoded image. Large JPEGs are decoded at a fraction of their size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a decoder, on what a client sent
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                kind, (width, height) = image.format, image.size
                image.draft("RGB", (_SIDE, _SIDE))
                deep = image.mode.startswith("I")  # 16 bits of grey, which convert would cut off
                pixels, most = np.asarray(image if deep else image.convert("RGB")), 65535 if deep else 255
                brightness = float(pixels.mean(dtype=np.float64)) / most
        except Exception:  # every decoder raises errors of its own, and no image may stop the collector
            return Picture()
    return Picture(kind, width, height, brightness)


def small_picture(content: bytes, *, side: int) -> Image.Image | None:
    """The image in RGB with sides of at most `side` pixels, turned as its EXIF says; None where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.draft("RGB", (2 * side, 2 * side))
                turned = ImageOps.exif_transpose(image)
                deep = turned.mode.startswith("I")
                small = (turned.point(lambda value: value * (1 / 256)).convert("L") if deep else turned).convert("RGB")
                small.thumbnail((side, side))
        except Exception:  # as above
            return None
    small.info.clear()  # Pillow would copy a comment of the file
    return small


def data_uri(picture: Image.Image, *, quality: int = 85) -> str:
    """A picture as the address of a JPEG that needs no file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
