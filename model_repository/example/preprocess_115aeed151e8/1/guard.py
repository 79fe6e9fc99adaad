"""What the guard sees of one encoded image before any decoder does: a status, and a placeholder for a refused image.

DALI fails a whole batch for one image that it cannot decode, and takes gigabytes or seconds for a few bytes that
declare much. So each image is looked at first: the format by its signature, the declared size, the structure down to
its end marker, and the tables that decoding needs. Pixels are not decoded: damage inside the compressed data is left
for the decoder to find.

| format | decoded | refused as unsupported |
| --- | --- | --- |
| JPEG | baseline, extended, progressive, arithmetic; 8 bits; 1, 3 or 4 components | lossless, hierarchical, 12-bit |
| PNG | every colour type and depth; the first frame of an animated one | |
| WebP | lossy, lossless, alpha; the first frame of an animated one | |
| BMP | 1 to 32 bits, plain or with bit fields | run lengths (their end can't be checked), rare fields, embedded files |
| TIFF | the first page; 1 to 4 channels of 8 or 16 bits, in strips or tiles | floats, BigTIFF, rare compressions |

This file and those of the formats, `guard_*.py`, are copied beside a model of Triton's Python backend: standard library
alone, Python 3.10 to 3.13.
"""

import base64
import struct

from . import guard_bmp, guard_jpeg, guard_png, guard_tiff, guard_webp
from .guard_common import (
    CORRUPT,
    EMPTY,
    INTERNAL,
    OK,
    STATUS_NAMES,
    TOO_LARGE,
    UNSUPPORTED,
    Limits,
    RefusedError,
)

__all__ = [
    "CORRUPT",
    "DEFAULT_LIMITS",
    "EMPTY",
    "INTERNAL",
    "OK",
    "PLACEHOLDER",
    "STATUS_NAMES",
    "TOO_LARGE",
    "UNSUPPORTED",
    "Limits",
    "for_decoder",
    "inspect",
    "measure",
]

PLACEHOLDER: bytes = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
)
"""A grey PNG of 8x8 pixels: what DALI decodes in the place of a refused image."""

DEFAULT_LIMITS = Limits()


def inspect(encoded: bytes, limits: Limits = DEFAULT_LIMITS) -> int:
    """The status of one encoded image, `OK` where it may go to the decoder. Raises nothing, whatever the bytes."""
    return measure(encoded, limits)[0]


def measure(encoded: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """The status of one encoded image, and the pixels that decoding it takes (0 for a refused one)."""
    if not encoded:
        return EMPTY, 0
    if len(encoded) > limits.max_bytes:
        return TOO_LARGE, 0
    try:
        return OK, _check(encoded, limits)
    except RefusedError as refused:
        return refused.status, 0
    except struct.error:  # a field that lies past the end
        return CORRUPT, 0


def for_decoder(encoded: bytes) -> bytes:
    """The bytes that DALI gets for an image that is `OK`: the image, but for a WebP that says it has EXIF."""
    return guard_webp.for_decoder(encoded) if encoded.startswith(b"RIFF") else encoded


def _check(data: bytes, limits: Limits) -> int:
    if data.startswith(b"\xff\xd8"):
        return guard_jpeg.check(data, limits)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return guard_png.check(data, limits)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return guard_webp.check(data, limits)
    if data.startswith(b"BM"):
        return guard_bmp.check(data, limits)
    if data.startswith((b"II*\0", b"MM\0*")):
        return guard_tiff.check(data, limits)
    raise RefusedError(UNSUPPORTED)
