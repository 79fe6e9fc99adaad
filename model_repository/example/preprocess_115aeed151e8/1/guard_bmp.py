"""BMP: BITMAPCOREHEADER, BITMAPINFOHEADER and its extensions."""

import struct

from .guard_common import UNSUPPORTED, Limits, check_size, require

_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_DEPTHS = {0: {1, 4, 8, 24, 32}, 3: {16, 32}}
_FIELDS = {16: {(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)}, 32: {(0xFF0000, 0xFF00, 0xFF)}}


def check(data: bytes, limits: Limits) -> int:
    """The pixels that decoding takes; raises for what is no whole BMP: see `guard_common`."""
    pixels_at, header_length = struct.unpack_from("<II", data, 10)
    require(header_length in _HEADERS)
    compression = 0
    if header_length == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    require(depth in _DEPTHS.get(compression, ()), UNSUPPORTED)
    pixels = check_size(width, abs(height), limits)  # a negative height means that the top row comes first
    row_bytes = (width * depth + 31) // 32 * 4
    require(14 + header_length <= pixels_at and pixels_at + row_bytes * abs(height) <= len(data))
    if compression == 3:  # any fields with 32 bits and a header that holds them; the decoder misreads or refuses others
        fields = struct.unpack_from("<III", data, 54)
        usual = fields in _FIELDS[depth] and (depth == 32 or header_length == 40)
        require(usual or (depth == 32 and header_length >= 56), UNSUPPORTED)
    if header_length > 12 and depth <= 8:
        (colours,) = struct.unpack_from("<I", data, 46)
        require(colours <= 256 and 14 + header_length + (colours or 1 << depth) * 4 <= pixels_at)
    return pixels
