"""EXIF in a PNG or a WebP: CIPA DC-008.

The decoder makes room for the image as one of its parts reads the orientation, and writes it as another reads it. Where
an entry is broken the two differ, and DALI 2.4 writes past the buffer's end.
"""

import struct

from .guard_common import MAX_ENTRIES, require

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_TEXTS = frozenset({0x10E, 0x10F, 0x110, 0x131, 0x132, 0x8298})
_RATIONALS = {0x11A: 1, 0x11B: 1, 0x13E: 2, 0x13F: 6, 0x211: 3, 0x214: 6}


def check(exif: bytes) -> None:
    """Raises RefusedError or struct.error: a reader would stumble over an entry."""
    order = _ORDERS.get(exif[:4])
    if order is None:  # and without the 42 after the order of bytes, nobody reads it
        require(exif[2:4] not in {b"*\0", b"\0*"})
        return
    (position,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, position)
    require(entries <= MAX_ENTRIES)
    for entry in range(position + 2, position + 2 + 12 * entries, 12):
        tag, kind, count, value_at = struct.unpack_from(order + "HHII", exif, entry)
        require(kind in _SIZES)
        length = count * _SIZES[kind]
        require(length <= 4 or value_at + length <= len(exif))
        require(tag not in _TEXTS or kind in {2, 129})
        require(tag not in _RATIONALS or (kind in {5, 10} and count == _RATIONALS[tag]))
