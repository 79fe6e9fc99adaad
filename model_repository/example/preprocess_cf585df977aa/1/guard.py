"""What the guard sees of one encoded image before any decoder does: a status, and a placeholder for a refused image.

DALI fails a whole batch for one image that it cannot decode, and takes gigabytes or seconds for a few bytes that
declare much. So each image is looked at first: the format by its signature, the declared size, and the structure
down to its end marker. Pixels are not decoded: damage inside the compressed data is left for the decoder to find.

| format | decoded | refused as unsupported |
| --- | --- | --- |
| JPEG | baseline, extended, progressive, arithmetic; 8 bits; 1, 3 or 4 components | lossless, hierarchical, 12-bit |
| PNG | every colour type and depth; the first frame of an animated one | |
| WebP | lossy, lossless, alpha; the first frame of an animated one | |
| BMP | 1 to 32 bits, plain or with bit fields | run lengths (their end can't be checked), embedded files |
| TIFF | the first page; 1 to 4 channels of 8 or 16 bits, in strips or tiles | floats, BigTIFF, rare compressions |

This file is copied beside a model of Triton's Python backend: standard library alone, Python 3.10 to 3.13.
"""

import base64
import re
import struct
import zlib
from dataclasses import dataclass

OK, EMPTY, UNSUPPORTED, CORRUPT, TOO_LARGE, INTERNAL = range(6)
STATUS_NAMES: tuple[str, ...] = ("ok", "empty", "unsupported format", "corrupt", "too large", "internal")

PLACEHOLDER: bytes = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
)
"""A grey PNG of 8x8 pixels: what DALI decodes in the place of a refused image."""


@dataclass(frozen=True)
class Limits:
    """The largest image that is let through to the decoder."""

    max_bytes: int = 32 * 1024 * 1024
    """Encoded size in bytes."""
    max_pixels: int = 64_000_000
    """Declared width times height."""
    max_aspect: int = 64
    """Longer side over shorter side: resizing the shorter side of 10000x1 would blow the longer one up to gigabytes."""


DEFAULT_LIMITS = Limits()

# More segments, chunks or strips than any writer makes. Each costs a turn of a Python loop, and the fewest bytes that
# make one are four.
_MAX_PARTS = 16_384
# Every scan of a progressive JPEG passes over all of its pixels, for as little as a hundred bytes; encoders write ten.
_MAX_SCANS = 64


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(STATUS_NAMES[status])
        self.status = status


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
    except _RefusedError as refused:
        return refused.status, 0
    except struct.error:  # a field that lies past the end: the file is cut short, or points out of itself
        return CORRUPT, 0


def _check(data: bytes, limits: Limits) -> int:
    """The declared pixels of an image whose structure is whole; raises for every other. So do the functions below."""
    if data.startswith(b"\xff\xd8"):
        return _check_jpeg(data, limits)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _check_png(data, limits)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _check_webp(data, limits)
    if data.startswith(b"BM"):
        return _check_bmp(data, limits)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _check_tiff(data, limits)
    raise _RefusedError(UNSUPPORTED)


def _require(condition: bool, otherwise: int = CORRUPT) -> None:
    if not condition:
        raise _RefusedError(otherwise)


def _check_size(width: int, height: int, limits: Limits) -> int:
    _require(width > 0 and height > 0)
    _require(width * height <= limits.max_pixels, TOO_LARGE)
    _require(max(width, height) <= limits.max_aspect * min(width, height), TOO_LARGE)
    return width * height


# JPEG: ITU-T T.81, annex B.

_JPEG_MARKER = re.compile(rb"\xff+([\xc0-\xfe])")
# In entropy-coded data a marker is a 0xFF that is neither stuffed (00), a restart (D0 to D7) nor a fill byte (FF).
_JPEG_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_DECODED = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_OTHERS = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})


def _check_jpeg(data: bytes, limits: Limits) -> int:
    frames = scans = pixels = 0
    position = 2
    for _ in range(_MAX_PARTS):
        found = _JPEG_MARKER.match(data, position)
        if found is None:
            break
        marker, position = found[1][0], found.end()
        if marker == _JPEG_END:
            _require(scans > 0)
            return pixels
        (length,) = struct.unpack_from(">H", data, position)
        _require(length >= 2 and position + length <= len(data))
        if marker in _JPEG_FRAMES:
            frames += 1
            _require(frames == 1)
            pixels = _check_jpeg_frame(marker, data, position, limits)
        elif marker == _JPEG_SCAN:
            scans += 1
            _require(frames == 1)
            _require(scans <= _MAX_SCANS, TOO_LARGE)
            end = _JPEG_SCAN_END.search(data, position + length)
            position, length = (end.start() if end else len(data)), 0
        else:
            _require(marker in _JPEG_OTHERS)
        position += length
    raise _RefusedError(CORRUPT)


def _check_jpeg_frame(marker: int, data: bytes, position: int, limits: Limits) -> int:
    length, bits, height, width, components = struct.unpack_from(">HBHHB", data, position)
    _require(marker in _JPEG_DECODED and bits == 8, UNSUPPORTED)
    _require(length == 8 + 3 * components and components in {1, 3, 4})
    return _check_size(width, height, limits)


# PNG: W3C PNG specification, third edition.

_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}


def _check_png(data: bytes, limits: Limits) -> int:
    view = memoryview(data)
    position, image_bytes, pixels = 8, 0, 0
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        _require(checksum == zlib.crc32(view[position + 4 : end]))
        _require((kind == b"IHDR") == (position == 8))
        if kind == b"IHDR":
            pixels = _check_png_header(data, length, limits)
        elif kind == b"IDAT":
            image_bytes += length
        elif kind == b"IEND":
            _require(image_bytes > 0)
            return pixels
        position = end + 4
    raise _RefusedError(CORRUPT)


def _check_png_header(data: bytes, length: int, limits: Limits) -> int:
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    _require(length == 13 and depth in _PNG_DEPTHS.get(colour, ()))
    _require(compression == 0 and filtering == 0 and interlace in {0, 1})
    return _check_size(width, height, limits)


# WebP: RFC 9649.


def _check_webp(data: bytes, limits: Limits) -> int:
    (riff_length,) = struct.unpack_from("<I", data, 4)
    position, end = 12, 8 + riff_length
    _require(end <= len(data))
    image_chunks = pixels = 0
    for _ in range(_MAX_PARTS):
        if position >= end:
            _require(image_chunks > 0)
            return pixels
        kind, length = struct.unpack_from("<4sI", data, position)
        _require(position + 8 + length <= end)
        if position == 12:  # the first chunk declares the size, and the decoder holds every later one to it
            pixels = _check_webp_header(kind, data, position + 8, limits)
        image_chunks += kind in {b"VP8 ", b"VP8L", b"ANMF"}
        position += 8 + length + length % 2
    raise _RefusedError(CORRUPT)


def _check_webp_header(kind: bytes, data: bytes, position: int, limits: Limits) -> int:
    if kind == b"VP8 ":
        start_code, width, height = struct.unpack_from("<3sHH", data, position + 3)
        _require(start_code == b"\x9d\x01\x2a")
        return _check_size(width & 0x3FFF, height & 0x3FFF, limits)
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", data, position)
        _require(signature == 0x2F and bits >> 29 == 0)
        return _check_size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, limits)
    if kind == b"VP8X":
        _, low, high = struct.unpack_from("<IIH", data, position)  # two sides of 24 bits each
        return _check_size((low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1, limits)
    raise _RefusedError(CORRUPT)


# BMP: BITMAPCOREHEADER, BITMAPINFOHEADER and its extensions.

_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_BMP_DEPTHS = {0: {1, 4, 8, 24, 32}, 3: {16, 32}}


def _check_bmp(data: bytes, limits: Limits) -> int:
    pixels_at, header_length = struct.unpack_from("<II", data, 10)
    _require(header_length in _BMP_HEADERS)
    compression = 0
    if header_length == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    _require(depth in _BMP_DEPTHS.get(compression, ()), UNSUPPORTED)
    pixels = _check_size(width, abs(height), limits)  # a negative height means that the top row comes first
    row_bytes = (width * depth + 31) // 32 * 4
    _require(14 + header_length <= pixels_at and pixels_at + row_bytes * abs(height) <= len(data))
    return pixels


# TIFF: revision 6.0.

_TIFF_TAGS = {256: "width", 257: "height", 258: "bits", 259: "compression", 262: "colour", 277: "samples"}
_TIFF_TAGS |= {273: "starts", 279: "lengths", 324: "starts", 325: "lengths"}  # of strips, of tiles
_TIFF_TAGS |= {322: "tile width", 323: "tile height", 339: "sample format"}
_TIFF_DEFAULTS = {"compression": (1,), "samples": (1,), "sample format": (1,)}
_TIFF_TYPES = {3: "H", 4: "I"}  # SHORT, and LONG where a tag may hold more
_TIFF_SHORT_TAGS = frozenset({258, 259, 262, 277, 339})
_TIFF_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946})  # none, LZW, JPEG, Deflate, PackBits, the older Deflate
_TIFF_COLOURS = frozenset({0, 1, 2, 3, 5, 6})  # grey either way, RGB, palette, CMYK, YCbCr


def _check_tiff(data: bytes, limits: Limits) -> int:
    order = "<" if data.startswith(b"II") else ">"
    (position,) = struct.unpack_from(order + "I", data, 4)
    pixels = _check_tiff_page(_tiff_tags(data, order, position), len(data), limits)
    for _ in range(_MAX_PARTS):  # the decoder takes the first page, but follows the chain of them to its end
        (entries,) = struct.unpack_from(order + "H", data, position)
        (position,) = struct.unpack_from(order + "I", data, position + 2 + 12 * entries)
        if position == 0:
            return pixels
    raise _RefusedError(CORRUPT)


def _tiff_tags(data: bytes, order: str, position: int) -> dict[str, tuple[int, ...]]:
    (entries,) = struct.unpack_from(order + "H", data, position)
    tags: dict[str, tuple[int, ...]] = {}
    for entry in range(position + 2, position + 2 + 12 * entries, 12):
        tag, kind, count, value_at = struct.unpack_from(order + "HHII", data, entry)
        if tag in _TIFF_TAGS:
            _require(kind in _TIFF_TYPES and (kind == 3 or tag not in _TIFF_SHORT_TAGS))
            _require(_TIFF_TAGS[tag] not in tags and 0 < count <= _MAX_PARTS)
            layout = f"{order}{count}{_TIFF_TYPES[kind]}"
            inside = struct.calcsize(layout) <= 4
            tags[_TIFF_TAGS[tag]] = struct.unpack_from(layout, data, entry + 8 if inside else value_at)
    return _TIFF_DEFAULTS | tags


def _check_tiff_page(tags: dict[str, tuple[int, ...]], file_bytes: int, limits: Limits) -> int:
    def number(name: str) -> int:
        values = tags.get(name, ())
        _require(len(values) == 1)
        return values[0]

    width, height, samples, compression = (number(name) for name in ("width", "height", "samples", "compression"))
    pixels = _check_size(width, height, limits)
    bits = tags.get("bits", ())
    _require(1 <= samples <= 4 and bits in {(8,) * samples, (16,) * samples}, UNSUPPORTED)
    _require(set(tags["sample format"]) == {1}, UNSUPPORTED)  # unsigned integers
    _require(compression in _TIFF_COMPRESSIONS and number("colour") in _TIFF_COLOURS, UNSUPPORTED)
    if "tile width" in tags or "tile height" in tags:  # a tile is decoded whole, however little of it is image
        across, down = number("tile width"), number("tile height")
        _require(across > 0 and down > 0)
        pixels = -(-width // across) * across * -(-height // down) * down
        _require(pixels <= limits.max_pixels, TOO_LARGE)
    starts, lengths = tags.get("starts", ()), tags.get("lengths", ())
    _require(0 < len(starts) == len(lengths))
    _require(all(start + length <= file_bytes for start, length in zip(starts, lengths, strict=True)))
    _require(compression != 1 or sum(lengths) >= width * height * sum(bits) // 8)
    return pixels
