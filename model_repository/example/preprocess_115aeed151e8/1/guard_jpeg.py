"""JPEG: ITU-T T.81, annex B. What is checked is what libjpeg-turbo refuses outside the entropy-coded data."""

import re
import struct
from operator import mul
from typing import NamedTuple

from .guard_common import CORRUPT, MAX_PARTS, TOO_LARGE, UNSUPPORTED, Limits, RefusedError, check_size, require

# Every scan of a progressive JPEG passes over all of its pixels, for as little as a hundred bytes; encoders write ten.
_MAX_SCANS = 64
_MARKER = re.compile(rb"\xff+([\xc0-\xfe])")
# In entropy-coded data a marker is a 0xFF that is neither stuffed (00), a restart (D0 to D7) nor a fill byte (FF).
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END, _SCAN, _RESTARTS = 0xD9, 0xDA, 0xDD
_QUANTISERS, _CODES, _CONDITIONING = 0xDB, 0xC4, 0xCC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_CODES, 0xC8, _CONDITIONING}
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = {0xC0, 0xC1}, {0xC2, 0xCA}, {0xC9, 0xCA}
_DECODED = _SEQUENTIAL | _PROGRESSIVE | _ARITHMETIC
_OTHERS = frozenset({0xDC, *range(0xE0, 0xF0), 0xFE})
_WORD_SPACES = tuple(1 << 16 - bits for bits in range(1, 17))  # what a word of so many bits takes of 65,536
_STANDARD_CODES = dict.fromkeys((0x00, 0x01, 0x10, 0x11), True)  # of a sequential image that brings none


class _Frame(NamedTuple):
    marker: int
    pixels: int
    components: tuple[tuple[int, int, int], ...]
    """Number, blocks in a unit of an interleaved scan, number of the quantiser."""


def check(data: bytes, limits: Limits) -> int:
    """The pixels that decoding takes; raises for what is no whole JPEG: see `guard_common`."""
    frame, scans, scan_bytes, position = None, 0, 0, 2
    whole = False
    quantisers: set[int] = set()
    codes: dict[int, bool] = {}
    for _ in range(MAX_PARTS):
        found = _MARKER.match(data, position)
        if found is None:
            break
        marker, position = found[1][0], found.end()
        if marker == _END and frame and scans:
            # Each block of 64 pixels takes a bit or more, except in arithmetic coding.
            require(frame.marker in _ARITHMETIC or frame.pixels <= 64 * 8 * scan_bytes)
            return frame.pixels
        (length,) = struct.unpack_from(">H", data, position)
        require(length >= 2 and position + length <= len(data))
        content = data[position + 2 : position + length]
        position += length
        if marker == _SCAN and frame:
            scans += 1
            require(scans <= _MAX_SCANS, TOO_LARGE)
            # libjpeg refuses a scan after the last one, and nvImageCodec then never frees the image's pixels.
            require(not whole)
            _check_scan(content, frame, quantisers, codes)
            whole = scans == 1 and frame.marker not in _PROGRESSIVE and content[0] == len(frame.components)
            end = _SCAN_END.search(data, position)
            if end is None:
                break
            scan_bytes += end.start() - position
            position = end.start()
        elif marker in _FRAMES:
            require(frame is None)
            frame = _frame(marker, content, limits)
        elif marker == _QUANTISERS:
            quantisers |= _quantisers(content)
        elif marker == _CODES:
            codes |= _codes(content)
        elif marker == _CONDITIONING:
            _check_conditioning(content)
        else:
            require(marker in _OTHERS or (marker == _RESTARTS and length == 4))
    raise RefusedError(CORRUPT)


def _frame(marker: int, content: bytes, limits: Limits) -> _Frame:
    bits, height, width, count = struct.unpack_from(">BHHB", content)
    require(marker in _DECODED and bits == 8, UNSUPPORTED)
    require(len(content) == 6 + 3 * count and count in {1, 3, 4})
    pixels = check_size(width, height, limits)
    across, down = [sampling >> 4 for sampling in content[7::3]], [sampling & 15 for sampling in content[7::3]]
    widest, tallest = max(across), max(down)
    require(min(across) > 0 and min(down) > 0 and widest <= 4 and tallest <= 4)
    # libjpeg-turbo enlarges chroma by whole numbers only.
    require({widest % n for n in across} | {tallest % n for n in down} == {0}, UNSUPPORTED)
    blocks = map(mul, across, down)
    return _Frame(marker, pixels, tuple(zip(content[6::3], blocks, content[8::3], strict=True)))


def _check_scan(content: bytes, frame: _Frame, quantisers: set[int], codes: dict[int, bool]) -> None:
    """A scan of components that the frame has, whose quantisers and codes are there and can be used."""
    require(len(content) >= 6 and len(content) == 4 + 2 * content[0])
    first, last, high, low = content[-3], content[-2], content[-1] >> 4, content[-1] & 15
    dc = ac = frame.marker in _SEQUENTIAL
    if dc:
        codes = _STANDARD_CODES | codes
    elif frame.marker in _PROGRESSIVE:
        require(last == 0 if first == 0 else first <= last < 64 and content[0] == 1)
        require(high in {0, low + 1} and low <= 13)
        if frame.marker not in _ARITHMETIC:
            dc, ac = first == 0 and high == 0, first > 0
    left, blocks = list(frame.components), 0
    for number, tables in zip(content[1:-3:2], content[2:-3:2], strict=True):
        component = next((component for component in left if component[0] == number), None)
        if component is None:
            raise RefusedError(CORRUPT)
        left.remove(component)
        blocks += component[1]
        require(component[2] in quantisers)
        require(codes.get(tables >> 4, False) or not dc)
        require(codes.get(tables & 15 | 0x10, False) or not ac)
    require(content[0] == 1 or blocks <= 10)


def _quantisers(content: bytes) -> set[int]:
    """The numbers of the tables in a segment: a byte of precision and number, then 64 values of one byte or two."""
    numbers, position = set(), 0
    while position < len(content):
        numbers.add(content[position] & 15)
        position += 129 if content[position] >> 4 else 65
    require(position == len(content) and max(numbers, default=0) < 4)
    return numbers


def _codes(content: bytes) -> dict[int, bool]:
    """The class (0x00 DC, 0x10 AC) and number of each Huffman code in a segment, and whether it can be used.

    After the class and number come the counts of code words of 1 to 16 bits, and a symbol for each word.
    """
    codes, position = {}, 0
    while position < len(content):
        code, counts = content[position], content[position + 1 : position + 17]
        symbols = content[position + 17 : position + 17 + sum(counts)]
        position += 17 + sum(counts)
        require(code & 0xEF < 4 and sum(counts) <= 256)
        space = sum(map(mul, counts, _WORD_SPACES))
        codes[code] = space < 1 << 16 and (code >= 0x10 or max(symbols, default=0) < 16)  # all ones is no code word
    require(position == len(content))
    return codes


def _check_conditioning(content: bytes) -> None:
    require(len(content) % 2 == 0)
    for table, value in zip(content[::2], content[1::2], strict=True):
        require(16 <= table < 32 or (table < 16 and value & 15 <= value >> 4))
