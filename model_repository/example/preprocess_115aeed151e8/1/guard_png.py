"""PNG: W3C PNG specification, third edition."""

import struct
import zlib

from . import guard_exif
from .guard_common import CORRUPT, MAX_PARTS, TOO_LARGE, Limits, RefusedError, check_size, require

# The most that a byte of Deflate can become: 258 bytes for two bits.
_MAX_INFLATION = 1032
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ASIDE = frozenset({b"zTXt", b"iTXt", b"iCCP"})  # libpng inflates each of them, up to 8 MB, though nobody reads it
_LARGEST_ASIDE = 8_000_000
# What may inflate unseen: one second and six, where the largest good PNG takes three and a half.
_UNSEEN_ASIDE = 64 * _LARGEST_ASIDE
_UNSEEN = 4 * 1024 * 1024 * _MAX_INFLATION


def check(data: bytes, limits: Limits) -> int:
    """The pixels that decoding takes; raises for what is no whole PNG: see `guard_common`."""
    view = memoryview(data)
    position, pixels, image_bytes, aside_bytes, exifs = 8, 0, 0, 0, 0
    parts: list[memoryview] = []
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        require(checksum == zlib.crc32(view[position + 4 : end]))
        require((kind == b"IHDR") == (position == 8))
        if kind == b"IHDR":
            pixels, image_bytes = _check_header(data, length, limits)
        elif kind == b"IDAT":
            parts.append(view[position + 8 : end])
        elif kind == b"eXIf":
            exifs += 1
            require(exifs == 1)
            guard_exif.check(data[position + 8 : end])
        elif kind in _ASIDE:
            aside_bytes += min(length * _MAX_INFLATION, _LARGEST_ASIDE)
            require(aside_bytes <= _UNSEEN_ASIDE, TOO_LARGE)
        elif kind == b"IEND":
            _check_data(parts, image_bytes)
            return pixels
        position = end + 4
    raise RefusedError(CORRUPT)


def _check_header(data: bytes, length: int, limits: Limits) -> tuple[int, int]:
    """The pixels, and the bytes of them once inflated: at least, since each row has one more."""
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    require(length == 13 and depth in _DEPTHS.get(colour, ()))
    require(compression == 0 and filtering == 0 and interlace in {0, 1})
    return check_size(width, height, limits), width * height * depth * _SAMPLES[colour] // 8


def _check_data(parts: list[memoryview], image_bytes: int) -> None:
    """The data can hold the image, and does not inflate to much more than it.

    libpng inflates all there is: 46 seconds for 31 MiB in a file that declares 64x64 pixels. To inflate here what the
    decoder inflates again costs good images time, so the last 4 MiB, all of an ordinary file, pass unseen.
    """
    left = sum(map(len, parts))
    require(image_bytes <= left * _MAX_INFLATION)
    inflater, inflated = zlib.decompressobj(), 0
    pieces = (part[start : start + 0x10000] for part in parts for start in range(0, len(part), 0x10000))
    for piece in pieces:
        if left * _MAX_INFLATION <= _UNSEEN:
            return
        left -= len(piece)
        pending: bytes | memoryview = piece
        while pending and not inflater.eof:
            try:
                inflated += len(inflater.decompress(pending, 0x100000))
            except zlib.error:
                raise RefusedError(CORRUPT) from None
            require(inflated <= 2 * image_bytes + 0x100000, TOO_LARGE)
            pending = inflater.unconsumed_tail
