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

This file is copied beside a model of Triton's Python backend: standard library alone, Python 3.10 to 3.13.
"""

import base64
import re
import struct
import zlib
from dataclasses import dataclass
from operator import mul
from typing import NamedTuple

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
_MAX_ENTRIES = 1024  # of a directory of tags
# Every scan of a progressive JPEG passes over all of its pixels, for as little as a hundred bytes; encoders write ten.
_MAX_SCANS = 64
# The most that a byte of Deflate can become: 258 bytes for two bits.
_MAX_INFLATION = 1032


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


def for_decoder(encoded: bytes) -> bytes:
    """The bytes that DALI gets for an image that is `OK`: the image, but for a WebP that says it has EXIF.

    DALI 2.4 looks for the EXIF chunk without regard for the byte that pads a chunk of odd length, and refuses the image
    when it finds none. So odd lengths are made even: the padding belongs to the chunk, and no chunk minds. Where there
    is no EXIF, the image no longer says so.
    """
    if not encoded.startswith(b"RIFF") or encoded[12:16] != b"VP8X" or not encoded[20] & _WEBP_EXIF:
        return encoded
    mended = bytearray(encoded)
    for kind, start, length in _webp_chunks(encoded, 12, 8 + int.from_bytes(encoded[4:8], "little")):
        if kind == b"EXIF":
            return bytes(mended)
        mended[start - 4 : start] = struct.pack("<I", length + length % 2)
    mended[20] &= ~_WEBP_EXIF
    return bytes(mended)


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


# EXIF: CIPA DC-008, in a PNG or a WebP. The decoder makes room for the image as one of its parts reads the orientation,
# and writes it as another reads it. Where an entry is broken the two differ, and DALI 2.4 writes past the buffer's end.

_EXIF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_EXIF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_EXIF_TEXTS = frozenset({0x10E, 0x10F, 0x110, 0x131, 0x132, 0x8298})
_EXIF_RATIONALS = {0x11A: 1, 0x11B: 1, 0x13E: 2, 0x13F: 6, 0x211: 3, 0x214: 6}


def _check_exif(exif: bytes) -> None:
    order = _EXIF_ORDERS.get(exif[:4])
    if order is None:  # and without the 42 after the order of bytes, nobody reads it
        _require(exif[2:4] not in {b"*\0", b"\0*"})
        return
    (position,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, position)
    _require(entries <= _MAX_ENTRIES)
    for entry in range(position + 2, position + 2 + 12 * entries, 12):
        tag, kind, count, value_at = struct.unpack_from(order + "HHII", exif, entry)
        _require(kind in _EXIF_SIZES)
        length = count * _EXIF_SIZES[kind]
        _require(length <= 4 or value_at + length <= len(exif))
        _require(tag not in _EXIF_TEXTS or kind in {2, 129})
        _require(tag not in _EXIF_RATIONALS or (kind in {5, 10} and count == _EXIF_RATIONALS[tag]))


# JPEG: ITU-T T.81, annex B. What is checked is what libjpeg-turbo refuses outside the entropy-coded data.

_JPEG_MARKER = re.compile(rb"\xff+([\xc0-\xfe])")
# In entropy-coded data a marker is a 0xFF that is neither stuffed (00), a restart (D0 to D7) nor a fill byte (FF).
_JPEG_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_END, _JPEG_SCAN, _JPEG_RESTARTS = 0xD9, 0xDA, 0xDD
_JPEG_QUANTISERS, _JPEG_CODES, _JPEG_CONDITIONING = 0xDB, 0xC4, 0xCC
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {_JPEG_CODES, 0xC8, _JPEG_CONDITIONING}
_JPEG_SEQUENTIAL, _JPEG_PROGRESSIVE, _JPEG_ARITHMETIC = {0xC0, 0xC1}, {0xC2, 0xCA}, {0xC9, 0xCA}
_JPEG_DECODED = _JPEG_SEQUENTIAL | _JPEG_PROGRESSIVE | _JPEG_ARITHMETIC
_JPEG_OTHERS = frozenset({0xDC, *range(0xE0, 0xF0), 0xFE})
_JPEG_WORD_SPACES = tuple(1 << 16 - bits for bits in range(1, 17))  # what a word of so many bits takes of 65,536
_JPEG_STANDARD_CODES = dict.fromkeys((0x00, 0x01, 0x10, 0x11), True)  # of a sequential image that brings none


class _JpegFrame(NamedTuple):
    marker: int
    pixels: int
    components: tuple[tuple[int, int, int], ...]
    """Number, blocks in a unit of an interleaved scan, number of the quantiser."""


def _check_jpeg(data: bytes, limits: Limits) -> int:
    frame, scans, scan_bytes, position = None, 0, 0, 2
    quantisers: set[int] = set()
    codes: dict[int, bool] = {}
    for _ in range(_MAX_PARTS):
        found = _JPEG_MARKER.match(data, position)
        if found is None:
            break
        marker, position = found[1][0], found.end()
        if marker == _JPEG_END and frame and scans:
            # Each block of 64 pixels takes a bit or more, except in arithmetic coding.
            _require(frame.marker in _JPEG_ARITHMETIC or frame.pixels <= 64 * 8 * scan_bytes)
            return frame.pixels
        (length,) = struct.unpack_from(">H", data, position)
        _require(length >= 2 and position + length <= len(data))
        content = data[position + 2 : position + length]
        position += length
        if marker == _JPEG_SCAN and frame:
            scans += 1
            _require(scans <= _MAX_SCANS, TOO_LARGE)
            _check_jpeg_scan(content, frame, quantisers, codes)
            end = _JPEG_SCAN_END.search(data, position)
            if end is None:
                break
            scan_bytes += end.start() - position
            position = end.start()
        elif marker in _JPEG_FRAMES:
            _require(frame is None)
            frame = _jpeg_frame(marker, content, limits)
        elif marker == _JPEG_QUANTISERS:
            quantisers |= _jpeg_quantisers(content)
        elif marker == _JPEG_CODES:
            codes |= _jpeg_codes(content)
        elif marker == _JPEG_CONDITIONING:
            _check_jpeg_conditioning(content)
        else:
            _require(marker in _JPEG_OTHERS or (marker == _JPEG_RESTARTS and length == 4))
    raise _RefusedError(CORRUPT)


def _jpeg_frame(marker: int, content: bytes, limits: Limits) -> _JpegFrame:
    bits, height, width, count = struct.unpack_from(">BHHB", content)
    _require(marker in _JPEG_DECODED and bits == 8, UNSUPPORTED)
    _require(len(content) == 6 + 3 * count and count in {1, 3, 4})
    pixels = _check_size(width, height, limits)
    across, down = [sampling >> 4 for sampling in content[7::3]], [sampling & 15 for sampling in content[7::3]]
    widest, tallest = max(across), max(down)
    _require(min(across) > 0 and min(down) > 0 and widest <= 4 and tallest <= 4)
    # libjpeg-turbo enlarges chroma by whole numbers only.
    _require({widest % n for n in across} | {tallest % n for n in down} == {0}, UNSUPPORTED)
    blocks = map(mul, across, down)
    return _JpegFrame(marker, pixels, tuple(zip(content[6::3], blocks, content[8::3], strict=True)))


def _check_jpeg_scan(content: bytes, frame: _JpegFrame, quantisers: set[int], codes: dict[int, bool]) -> None:
    """A scan of components that the frame has, whose quantisers and codes are there and can be used."""
    _require(len(content) >= 6 and len(content) == 4 + 2 * content[0])
    first, last, high, low = content[-3], content[-2], content[-1] >> 4, content[-1] & 15
    dc = ac = frame.marker in _JPEG_SEQUENTIAL
    if dc:
        codes = _JPEG_STANDARD_CODES | codes
    elif frame.marker in _JPEG_PROGRESSIVE:
        _require(last == 0 if first == 0 else first <= last < 64 and content[0] == 1)
        _require(high in {0, low + 1} and low <= 13)
        if frame.marker not in _JPEG_ARITHMETIC:
            dc, ac = first == 0 and high == 0, first > 0
    left, blocks = list(frame.components), 0
    for number, tables in zip(content[1:-3:2], content[2:-3:2], strict=True):
        component = next((component for component in left if component[0] == number), None)
        if component is None:
            raise _RefusedError(CORRUPT)
        left.remove(component)
        blocks += component[1]
        _require(component[2] in quantisers)
        _require(codes.get(tables >> 4, False) or not dc)
        _require(codes.get(tables & 15 | 0x10, False) or not ac)
    _require(content[0] == 1 or blocks <= 10)


def _jpeg_quantisers(content: bytes) -> set[int]:
    """The numbers of the tables in a segment: a byte of precision and number, then 64 values of one byte or two."""
    numbers, position = set(), 0
    while position < len(content):
        numbers.add(content[position] & 15)
        position += 129 if content[position] >> 4 else 65
    _require(position == len(content) and max(numbers, default=0) < 4)
    return numbers


def _jpeg_codes(content: bytes) -> dict[int, bool]:
    """The class (0x00 DC, 0x10 AC) and number of each Huffman code in a segment, and whether it can be used.

    After the class and number come the counts of code words of 1 to 16 bits, and a symbol for each word.
    """
    codes, position = {}, 0
    while position < len(content):
        code, counts = content[position], content[position + 1 : position + 17]
        symbols = content[position + 17 : position + 17 + sum(counts)]
        position += 17 + sum(counts)
        _require(code & 0xEF < 4 and sum(counts) <= 256)
        space = sum(map(mul, counts, _JPEG_WORD_SPACES))
        codes[code] = space < 1 << 16 and (code >= 0x10 or max(symbols, default=0) < 16)  # all ones is no code word
    _require(position == len(content))
    return codes


def _check_jpeg_conditioning(content: bytes) -> None:
    _require(len(content) % 2 == 0)
    for table, value in zip(content[::2], content[1::2], strict=True):
        _require(16 <= table < 32 or (table < 16 and value & 15 <= value >> 4))


# PNG: W3C PNG specification, third edition.

_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_ASIDE = frozenset({b"zTXt", b"iTXt", b"iCCP"})  # libpng inflates each of them, up to 8 MB, though nobody reads it
_PNG_LARGEST_ASIDE = 8_000_000
# What may inflate unseen: one second and six, where the largest good PNG takes three and a half.
_PNG_UNSEEN_ASIDE = 64 * _PNG_LARGEST_ASIDE
_PNG_UNSEEN = 4 * 1024 * 1024 * _MAX_INFLATION


def _check_png(data: bytes, limits: Limits) -> int:
    view = memoryview(data)
    position, pixels, image_bytes, aside_bytes, exifs = 8, 0, 0, 0, 0
    parts: list[memoryview] = []
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        _require(checksum == zlib.crc32(view[position + 4 : end]))
        _require((kind == b"IHDR") == (position == 8))
        if kind == b"IHDR":
            pixels, image_bytes = _check_png_header(data, length, limits)
        elif kind == b"IDAT":
            parts.append(view[position + 8 : end])
        elif kind == b"eXIf":
            exifs += 1
            _require(exifs == 1)
            _check_exif(data[position + 8 : end])
        elif kind in _PNG_ASIDE:
            aside_bytes += min(length * _MAX_INFLATION, _PNG_LARGEST_ASIDE)
            _require(aside_bytes <= _PNG_UNSEEN_ASIDE, TOO_LARGE)
        elif kind == b"IEND":
            _check_png_data(parts, image_bytes)
            return pixels
        position = end + 4
    raise _RefusedError(CORRUPT)


def _check_png_header(data: bytes, length: int, limits: Limits) -> tuple[int, int]:
    """The pixels, and the bytes of them once inflated: at least, since each row has one more."""
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    _require(length == 13 and depth in _PNG_DEPTHS.get(colour, ()))
    _require(compression == 0 and filtering == 0 and interlace in {0, 1})
    return _check_size(width, height, limits), width * height * depth * _PNG_SAMPLES[colour] // 8


def _check_png_data(parts: list[memoryview], image_bytes: int) -> None:
    """The data can hold the image, and does not inflate to much more than it.

    libpng inflates all there is: 46 seconds for 31 MiB in a file that declares 64x64 pixels. To inflate here what the
    decoder inflates again costs good images time, so the last 4 MiB, all of an ordinary file, pass unseen.
    """
    left = sum(map(len, parts))
    _require(image_bytes <= left * _MAX_INFLATION)
    inflater, inflated = zlib.decompressobj(), 0
    pieces = (part[start : start + 0x10000] for part in parts for start in range(0, len(part), 0x10000))
    for piece in pieces:
        if left * _MAX_INFLATION <= _PNG_UNSEEN:
            return
        left -= len(piece)
        pending: bytes | memoryview = piece
        while pending and not inflater.eof:
            try:
                inflated += len(inflater.decompress(pending, 0x100000))
            except zlib.error:
                raise _RefusedError(CORRUPT) from None
            _require(inflated <= 2 * image_bytes + 0x100000, TOO_LARGE)
            pending = inflater.unconsumed_tail


# WebP: RFC 9649.

_WEBP_EXIF, _WEBP_ANIMATED, _WEBP_RESERVED = 0x08, 0x02, 0xC1
_WebpChunk = tuple[bytes, int, int]
"""Kind, then start and length of the content."""


def _check_webp(data: bytes, limits: Limits) -> int:
    (riff_length,) = struct.unpack_from("<I", data, 4)
    _require(8 + riff_length <= len(data))
    chunks = _webp_chunks(data, 12, 8 + riff_length)
    _require(len(chunks) > 0)
    kind, start, length = chunks[0]
    if kind != b"VP8X":
        return _check_size(*_webp_image_size(data, chunks), limits)
    _require(length >= 10)
    flags, low, high = struct.unpack_from("<IIH", data, start)
    canvas = (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1  # two sides of 24 bits each
    pixels = _check_size(*canvas, limits)
    _require(not flags & _WEBP_RESERVED)
    exif = next((chunk for chunk in chunks if chunk[0] == b"EXIF"), None)
    if exif and flags & _WEBP_EXIF:
        _check_exif(data[exif[1] : exif[1] + exif[2]])
    if flags & _WEBP_ANIMATED:
        _check_webp_frames(data, chunks, canvas, limits)
    else:
        _require(_webp_image_size(data, chunks) == canvas)
    return pixels


def _webp_chunks(data: bytes, position: int, end: int) -> list[_WebpChunk]:
    chunks: list[_WebpChunk] = []
    for _ in range(_MAX_PARTS):
        if position >= end:
            return chunks
        kind, length = struct.unpack_from("<4sI", data, position)
        _require(position + 8 + length <= end)
        chunks.append((kind, position + 8, length))
        position += 8 + length + length % 2
    raise _RefusedError(CORRUPT)


def _webp_image_size(data: bytes, chunks: list[_WebpChunk]) -> tuple[int, int]:
    """Width and height of the first image among the chunks."""
    for kind, start, length in chunks:
        if kind == b"VP8 ":
            low, high, start_code, width, height = struct.unpack_from("<HB3sHH", data, start)
            tag = low | high << 16
            _require(start_code == b"\x9d\x01\x2a")
            # A key frame of a known profile, that is shown, and whose first partition leaves room for the second.
            _require(tag & 1 == 0 and tag >> 1 & 7 <= 3 and tag >> 4 & 1 == 1 and 10 + (tag >> 5) < length)
            return width & 0x3FFF, height & 0x3FFF
        if kind == b"VP8L":
            signature, bits = struct.unpack_from("<BI", data, start)
            _require(signature == 0x2F and bits >> 29 == 0)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise _RefusedError(CORRUPT)


def _check_webp_frames(data: bytes, chunks: list[_WebpChunk], canvas: tuple[int, int], limits: Limits) -> None:
    """The decoder takes the first frame, and looks at all of them before it does."""
    kinds = [kind for kind, _, _ in chunks]
    _require(b"ANMF" in kinds and b"ANIM" in kinds[: kinds.index(b"ANMF")])
    for kind, start, length in chunks:
        if kind == b"ANMF":
            _require(length >= 16)
            x, y, width, height = (int.from_bytes(data[start + i : start + i + 3], "little") for i in (0, 3, 6, 9))
            _require(2 * x + width + 1 <= canvas[0] and 2 * y + height + 1 <= canvas[1])
            _check_size(*_webp_image_size(data, _webp_chunks(data, start + 16, start + length)), limits)


# BMP: BITMAPCOREHEADER, BITMAPINFOHEADER and its extensions.

_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_BMP_DEPTHS = {0: {1, 4, 8, 24, 32}, 3: {16, 32}}
_BMP_FIELDS = {16: {(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)}, 32: {(0xFF0000, 0xFF00, 0xFF)}}


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
    if compression == 3:  # any fields with 32 bits and a header that holds them; the decoder misreads or refuses others
        fields = struct.unpack_from("<III", data, 54)
        usual = fields in _BMP_FIELDS[depth] and (depth == 32 or header_length == 40)
        _require(usual or (depth == 32 and header_length >= 56), UNSUPPORTED)
    if header_length > 12 and depth <= 8:
        (colours,) = struct.unpack_from("<I", data, 46)
        _require(colours <= 256 and 14 + header_length + (colours or 1 << depth) * 4 <= pixels_at)
    return pixels


# TIFF: revision 6.0.

_TIFF_TAGS = {256: "width", 257: "height", 258: "bits", 259: "compression", 262: "colour", 277: "samples"}
_TIFF_TAGS |= {273: "starts", 279: "lengths", 324: "starts", 325: "lengths"}  # of strips, of tiles
_TIFF_TAGS |= {274: "orientation", 284: "planes", 322: "tile width", 323: "tile height", 339: "sample format"}
_TIFF_DEFAULTS = {"compression": (1,), "orientation": (1,), "samples": (1,), "planes": (1,), "sample format": (1,)}
_TIFF_TYPES = {3: "H", 4: "I"}  # SHORT, and LONG where a tag may hold more
_TIFF_SHORT_TAGS = frozenset({258, 259, 262, 277, 284, 339})
_TIFF_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946})  # none, LZW, JPEG, Deflate, PackBits, the older Deflate
# Grey either way, RGB, palette, CMYK, YCbCr, and the samples that they take.
_TIFF_COLOURS = {0: {1}, 1: {1}, 2: {3, 4}, 3: {1}, 5: {4}, 6: {3}}
_TIFF_WHITE_IS_ZERO, _TIFF_RGB, _TIFF_YCBCR, _TIFF_JPEG = 0, 2, 6, 7


def _check_tiff(data: bytes, limits: Limits) -> int:
    order = "<" if data.startswith(b"II") else ">"
    (position,) = struct.unpack_from(order + "I", data, 4)
    pixels = _check_tiff_page(_tiff_tags(data, order, position), data, limits)
    for _ in range(_MAX_PARTS):  # the decoder takes the first page, but follows the chain of them to its end
        (entries,) = struct.unpack_from(order + "H", data, position)
        (position,) = struct.unpack_from(order + "I", data, position + 2 + 12 * entries)
        if position == 0:
            return pixels
    raise _RefusedError(CORRUPT)


def _tiff_tags(data: bytes, order: str, position: int) -> dict[str, tuple[int, ...]]:
    (entries,) = struct.unpack_from(order + "H", data, position)
    _require(entries <= _MAX_ENTRIES)
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


def _check_tiff_page(tags: dict[str, tuple[int, ...]], data: bytes, limits: Limits) -> int:
    def number(name: str) -> int:
        values = tags.get(name, ())
        _require(len(values) == 1)
        return values[0]

    width, height, samples, compression = (number(name) for name in ("width", "height", "samples", "compression"))
    pixels = _check_size(width, height, limits)
    bits = tags.get("bits", ())
    _require(1 <= samples <= 4 and bits in {(8,) * samples, (16,) * samples}, UNSUPPORTED)
    _require(set(tags["sample format"]) == {1}, UNSUPPORTED)  # unsigned integers
    colour = number("colour")
    _require(compression in _TIFF_COMPRESSIONS and samples in _TIFF_COLOURS.get(colour, ()), UNSUPPORTED)
    planes, orientation = number("planes"), number("orientation")
    _require(planes in {1, 2} and orientation < 1 << 16)
    # Decoded without an error, and wrong: a negative, one plane for all, colours multiplied by alpha.
    _require(bits[0] == 8 or (colour != _TIFF_WHITE_IS_ZERO and planes == 1), UNSUPPORTED)
    _require(colour != _TIFF_RGB or samples == 3 or not 2 <= orientation <= 8, UNSUPPORTED)
    if "tile width" in tags or "tile height" in tags:  # a tile is decoded whole, however little of it is image
        across, down = number("tile width"), number("tile height")
        _require(across > 0 and down > 0)
        pixels = -(-width // across) * across * -(-height // down) * down
        _require(pixels <= limits.max_pixels, TOO_LARGE)
    starts, lengths = tags.get("starts", ()), tags.get("lengths", ())
    _require(0 < len(starts) == len(lengths))
    _require(all(start + length <= len(data) for start, length in zip(starts, lengths, strict=True)))
    _require(compression != _TIFF_JPEG or all(data.startswith(b"\xff\xd8", start) for start in starts))
    bits_stored = bits[0] if colour == _TIFF_YCBCR else sum(bits)  # at least: chroma may be stored smaller
    _require(compression != 1 or sum(lengths) >= width * height * bits_stored // 8)
    return pixels
