"""Large JPEGs, decoded at a half, a quarter or an eighth of their size by libjpeg-turbo's scaled inverse transform.

A photograph of 12 million pixels is thrown away but for a few thousand; decoding fewer of them takes a third of the
time or less. What is left has at least twice the size that it is resized to, so the resize still sees more than it
keeps.

This file is copied into model repositories: numpy and simplejpeg alone, Python 3.10 to 3.13.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

Pixels = npt.NDArray[np.uint8]
SCALES = (8, 4, 2)
KEPT = 2
"""What is decoded has at least so many times the size that it is resized to."""
TRANSPOSED = frozenset({5, 6, 7, 8})
"""Orientations that exchange height and width."""
_MARKER = re.compile(rb"\xff+([\xc0-\xfe])")
_SCAN, _APP1, _EXIF = 0xDA, 0xE1, b"Exif\0\0"
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _SHORT = 0x112, 3


class Decoded(NamedTuple):
    """RGB `UINT8 [h, w, 3]`, and what it shows of an image of `full_hw`."""

    pixels: Any
    full_hw: tuple[int, int]
    start_hw: tuple[float, float]
    """Where the image begins in `pixels`, and where it ends: a scaled JPEG's last pixels may reach beyond it."""
    end_hw: tuple[float, float]

    @classmethod
    def whole(cls, pixels: Any) -> "Decoded":
        height, width = pixels.shape[:2]
        return cls(pixels, (height, width), (0.0, 0.0), (height, width))

    @classmethod
    def part(cls, pixels: Any, full_hw: tuple[int, int], first_hw: tuple[int, int]) -> "Decoded":
        """Pixels that begin at `first_hw` of the image."""
        start_y, start_x = -first_hw[0], -first_hw[1]
        return cls(pixels, full_hw, (start_y, start_x), (start_y + full_hw[0], start_x + full_hw[1]))


class Seen(NamedTuple):
    hw: tuple[int, int]
    """Height and width as the image is seen."""
    orientation: int
    """EXIF's, 1 to 8."""


def seen(encoded: bytes, *, by_exif: bool) -> Seen | None:
    """The size of a JPEG of grey or of YCbCr, turned `by_exif`.

    None: it is something else, or its orientation cannot be told.
    """
    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded, strict=True)
        orientation = _orientation(encoded) if by_exif else 1
    except (ValueError, KeyError, struct.error):  # KeyError: 4:4:1, for which simplejpeg 1.9 has no name
        return None
    if colours not in {"YCbCr", "Gray"} or orientation is None:
        return None
    return Seen((width, height) if orientation in TRANSPOSED else (height, width), orientation)


def scale_of(hw: tuple[int, int], new_hw: tuple[int, int]) -> int:
    """How many times smaller an image may be decoded that is resized to `new_hw`: 8, 4, 2, or 1."""
    times = min(side / new for side, new in zip(hw, new_hw, strict=True))
    return next((scale for scale in SCALES if times >= KEPT * scale), 1)


def decode(encoded: bytes, scale: int, image: Seen) -> Decoded | None:
    """The image, `scale` times smaller and turned as seen; None where anything is wrong with it."""
    least_hw = [-(-side // scale) for side in image.hw]  # rounded up, as libjpeg does
    height, width = reversed(least_hw) if image.orientation in TRANSPOSED else least_hw
    try:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", min_height=height, min_width=width, strict=True)
    except ValueError:
        return None
    turned, mirrored = _turned(pixels, image.orientation)
    beyond_hw = [least - side / scale for least, side in zip(least_hw, image.hw, strict=True)]
    start_y, start_x = (beyond if mirror else 0.0 for beyond, mirror in zip(beyond_hw, mirrored, strict=True))
    end_hw = start_y + image.hw[0] / scale, start_x + image.hw[1] / scale
    return Decoded(np.ascontiguousarray(turned), image.hw, (start_y, start_x), end_hw)


def _turned(pixels: Pixels, orientation: int) -> tuple[Pixels, tuple[bool, bool]]:
    """The pixels by one of EXIF's eight orientations, and whether that mirrors them in y and in x."""
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    in_y, in_x = orientation in {3, 4, 7, 8}, orientation in {2, 3, 6, 7}
    return pixels[:: -1 if in_y else 1, :: -1 if in_x else 1], (in_y, in_x)


def _orientation(encoded: bytes) -> int | None:
    """1 without EXIF or without the entry; None where readers may differ."""
    exifs = list(_exifs(encoded))
    if len(exifs) != 1:
        return None if exifs else 1
    (exif,) = exifs
    order = _ORDERS.get(exif[:4])
    if order is None:
        return None
    (first,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, first)
    found = []
    for entry in range(first + 2, first + 2 + 12 * entries, 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == _ORIENTATION:
            found.append(value if kind == _SHORT and count == 1 else 0)
    if not found:
        return 1
    return found[0] if len(found) == 1 and 1 <= found[0] <= 8 else None


def _exifs(encoded: bytes) -> Iterator[bytes]:
    position = 2
    while (marker := _MARKER.match(encoded, position)) is not None and marker[1][0] != _SCAN:
        (length,) = struct.unpack_from(">H", encoded, marker.end())
        content = encoded[marker.end() + 2 : marker.end() + length]
        if marker[1][0] == _APP1 and content.startswith(_EXIF):
            yield content[len(_EXIF) :]
        position = marker.end() + length
