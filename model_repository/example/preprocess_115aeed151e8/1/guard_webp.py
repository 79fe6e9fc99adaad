"""WebP: RFC 9649."""

import struct

from . import guard_exif
from .guard_common import CORRUPT, MAX_PARTS, Limits, RefusedError, check_size, require

_EXIF, _ANIMATED, _RESERVED = 0x08, 0x02, 0xC1
_Chunk = tuple[bytes, int, int]
"""Kind, then start and length of the content."""


def check(data: bytes, limits: Limits) -> int:
    """The pixels that decoding takes; raises for what is no whole WebP: see `guard_common`."""
    (riff_length,) = struct.unpack_from("<I", data, 4)
    require(8 + riff_length <= len(data))
    chunks = _chunks(data, 12, 8 + riff_length)
    require(len(chunks) > 0)
    kind, start, length = chunks[0]
    if kind != b"VP8X":
        return check_size(*_image_size(data, chunks), limits)
    require(length >= 10)
    flags, low, high = struct.unpack_from("<IIH", data, start)
    canvas = (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1  # two sides of 24 bits each
    pixels = check_size(*canvas, limits)
    require(not flags & _RESERVED)
    exif = next((chunk for chunk in chunks if chunk[0] == b"EXIF"), None)
    if exif and flags & _EXIF:
        guard_exif.check(data[exif[1] : exif[1] + exif[2]])
    if flags & _ANIMATED:
        _check_frames(data, chunks, canvas, limits)
    else:
        require(_image_size(data, chunks) == canvas)
    return pixels


def _chunks(data: bytes, position: int, end: int) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    for _ in range(MAX_PARTS):
        if position >= end:
            return chunks
        kind, length = struct.unpack_from("<4sI", data, position)
        require(position + 8 + length <= end)
        chunks.append((kind, position + 8, length))
        position += 8 + length + length % 2
    raise RefusedError(CORRUPT)


def _image_size(data: bytes, chunks: list[_Chunk]) -> tuple[int, int]:
    """Width and height of the first image among the chunks."""
    for kind, start, length in chunks:
        if kind == b"VP8 ":
            low, high, start_code, width, height = struct.unpack_from("<HB3sHH", data, start)
            tag = low | high << 16
            require(start_code == b"\x9d\x01\x2a")
            # A key frame of a known profile, that is shown, and whose first partition leaves room for the second.
            require(tag & 1 == 0 and tag >> 1 & 7 <= 3 and tag >> 4 & 1 == 1 and 10 + (tag >> 5) < length)
            return width & 0x3FFF, height & 0x3FFF
        if kind == b"VP8L":
            signature, bits = struct.unpack_from("<BI", data, start)
            require(signature == 0x2F and bits >> 29 == 0)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise RefusedError(CORRUPT)


def _check_frames(data: bytes, chunks: list[_Chunk], canvas: tuple[int, int], limits: Limits) -> None:
    """The decoder takes the first frame, and looks at all of them before it does."""
    kinds = [kind for kind, _, _ in chunks]
    require(b"ANMF" in kinds and b"ANIM" in kinds[: kinds.index(b"ANMF")])
    for kind, start, length in chunks:
        if kind == b"ANMF":
            require(length >= 16)
            x, y, width, height = (int.from_bytes(data[start + i : start + i + 3], "little") for i in (0, 3, 6, 9))
            require(2 * x + width + 1 <= canvas[0] and 2 * y + height + 1 <= canvas[1])
            check_size(*_image_size(data, _chunks(data, start + 16, start + length)), limits)


def for_decoder(encoded: bytes) -> bytes:
    """The bytes that DALI gets for a WebP that is whole: the same, but for one that says it has EXIF.

    DALI 2.4 looks for the EXIF chunk without regard for the byte that pads a chunk of odd length, and refuses the image
    when it finds none. So odd lengths are made even: the padding belongs to the chunk, and no chunk minds. Where there
    is no EXIF, the image no longer says so.
    """
    if encoded[12:16] != b"VP8X" or not encoded[20] & _EXIF:
        return encoded
    mended = bytearray(encoded)
    for kind, start, length in _chunks(encoded, 12, 8 + int.from_bytes(encoded[4:8], "little")):
        if kind == b"EXIF":
            return bytes(mended)
        mended[start - 4 : start] = struct.pack("<I", length + length % 2)
    mended[20] &= ~_EXIF
    return bytes(mended)
