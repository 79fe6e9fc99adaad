"""Large JPEGs, decoded at a fraction of their size and encoded again, so that the client pays for a photograph."""

import struct

import numpy as np

from slipway.contract import MissingDependencyError

try:
    import simplejpeg

    from slipway.steps import scaled_jpeg
    from slipway.steps.guard import OK, Limits, inspect
except ModuleNotFoundError:
    raise MissingDependencyError("simplejpeg", extra="client") from None

QUALITY, SUBSAMPLING = 95, "444"
"""A photograph was smoothed by its first encoding, so this keeps nearly all of it, and all of its colours."""
_ORIENTATION, _SHORT = 0x112, 3
_LIMITS = Limits(max_bytes=128 << 20, max_pixels=256_000_000)
"""Limits of the JPEGs that the client shrinks, above those of any telephone's photograph. A progressive JPEG takes 6
bytes a pixel, however small its file is."""


def shrunk(encoded: bytes, *, least_px: int) -> bytes:
    """A JPEG at a half, a quarter or an eighth of its size, whose shorter side still has `least_px` pixels or more.

    Of its metadata only EXIF's orientation is kept. Every other image is returned as it is: other formats, JPEGs that
    are small enough, CMYK and RGB ones, those with EXIF that readers may understand differently, and damaged ones or
    those of over 256 million pixels, which the server judges.
    """
    image = scaled_jpeg.seen(encoded, by_exif=True)
    if image is None or inspect(encoded, _LIMITS) != OK:
        return encoded
    scale = next((scale for scale in scaled_jpeg.SCALES if min(image.hw) >= scale * least_px), 1)
    stored_hw = image.hw[::-1] if image.orientation in scaled_jpeg.TRANSPOSED else image.hw
    decoded = scaled_jpeg.decode(encoded, scale, scaled_jpeg.Seen(stored_hw, 1)) if scale > 1 else None
    if decoded is None:
        return encoded
    # The last row and column reach beyond the image's edge: they stay where at least half of them shows it.
    height, width = (round(side) for side in decoded.end_hw)
    pixels = np.ascontiguousarray(decoded.pixels[:height, :width])
    smaller: bytes = simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling=SUBSAMPLING)
    smaller = smaller[:2] + _exif(image.orientation) + smaller[2:]
    return min(smaller, encoded, key=len)


def _exif(orientation: int) -> bytes:
    """A JPEG's segment that has the orientation alone; none for an upright image."""
    if orientation == 1:
        return b""
    entry = struct.pack(">HHIHH", _ORIENTATION, _SHORT, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return struct.pack(">HH", 0xFFE1, 2 + len(exif)) + exif
