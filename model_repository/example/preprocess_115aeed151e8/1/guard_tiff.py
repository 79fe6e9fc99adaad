"""TIFF: revision 6.0."""

import struct

from .guard_common import (
    CORRUPT,
    MAX_ENTRIES,
    MAX_PARTS,
    TOO_LARGE,
    UNSUPPORTED,
    Limits,
    RefusedError,
    check_size,
    require,
)

_TAGS = {256: "width", 257: "height", 258: "bits", 259: "compression", 262: "colour", 277: "samples"}
_TAGS |= {273: "starts", 279: "lengths", 324: "starts", 325: "lengths"}  # of strips, of tiles
_TAGS |= {274: "orientation", 284: "planes", 322: "tile width", 323: "tile height", 339: "sample format"}
_DEFAULTS = {"compression": (1,), "orientation": (1,), "samples": (1,), "planes": (1,), "sample format": (1,)}
_TYPES = {3: "H", 4: "I"}  # SHORT, and LONG where a tag may hold more
_SHORT_TAGS = frozenset({258, 259, 262, 277, 284, 339})
_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946})  # none, LZW, JPEG, Deflate, PackBits, the older Deflate
# Grey either way, RGB, palette, CMYK, YCbCr, and the samples that they take.
_COLOURS = {0: {1}, 1: {1}, 2: {3, 4}, 3: {1}, 5: {4}, 6: {3}}
_WHITE_IS_ZERO, _RGB, _YCBCR, _JPEG = 0, 2, 6, 7


def check(data: bytes, limits: Limits) -> int:
    """The pixels that decoding takes; raises for what is no whole TIFF: see `guard_common`."""
    order = "<" if data.startswith(b"II") else ">"
    (position,) = struct.unpack_from(order + "I", data, 4)
    pixels = _check_page(_tags(data, order, position), data, limits)
    for _ in range(MAX_PARTS):  # the decoder takes the first page, but follows the chain of them to its end
        (entries,) = struct.unpack_from(order + "H", data, position)
        (position,) = struct.unpack_from(order + "I", data, position + 2 + 12 * entries)
        if position == 0:
            return pixels
    raise RefusedError(CORRUPT)


def _tags(data: bytes, order: str, position: int) -> dict[str, tuple[int, ...]]:
    (entries,) = struct.unpack_from(order + "H", data, position)
    require(entries <= MAX_ENTRIES)
    tags: dict[str, tuple[int, ...]] = {}
    for entry in range(position + 2, position + 2 + 12 * entries, 12):
        tag, kind, count, value_at = struct.unpack_from(order + "HHII", data, entry)
        if tag in _TAGS:
            require(kind in _TYPES and (kind == 3 or tag not in _SHORT_TAGS))
            require(_TAGS[tag] not in tags and 0 < count <= MAX_PARTS)
            layout = f"{order}{count}{_TYPES[kind]}"
            inside = struct.calcsize(layout) <= 4
            tags[_TAGS[tag]] = struct.unpack_from(layout, data, entry + 8 if inside else value_at)
    return _DEFAULTS | tags


def _check_page(tags: dict[str, tuple[int, ...]], data: bytes, limits: Limits) -> int:
    def number(name: str) -> int:
        values = tags.get(name, ())
        require(len(values) == 1)
        return values[0]

    width, height, samples, compression = (number(name) for name in ("width", "height", "samples", "compression"))
    pixels = check_size(width, height, limits)
    bits = tags.get("bits", ())
    require(1 <= samples <= 4 and bits in {(8,) * samples, (16,) * samples}, UNSUPPORTED)
    require(set(tags["sample format"]) == {1}, UNSUPPORTED)  # unsigned integers
    colour = number("colour")
    require(compression in _COMPRESSIONS and samples in _COLOURS.get(colour, ()), UNSUPPORTED)
    planes, orientation = number("planes"), number("orientation")
    require(planes in {1, 2} and orientation < 1 << 16)
    # Decoded without an error, and wrong: a negative, one plane for all, colours multiplied by alpha.
    require(bits[0] == 8 or (colour != _WHITE_IS_ZERO and planes == 1), UNSUPPORTED)
    require(colour != _RGB or samples == 3 or not 2 <= orientation <= 8, UNSUPPORTED)
    if "tile width" in tags or "tile height" in tags:  # a tile is decoded whole, however little of it is image
        across, down = number("tile width"), number("tile height")
        require(across > 0 and down > 0)
        pixels = -(-width // across) * across * -(-height // down) * down
        require(pixels <= limits.max_pixels, TOO_LARGE)
    starts, lengths = tags.get("starts", ()), tags.get("lengths", ())
    require(0 < len(starts) == len(lengths))
    require(all(start + length <= len(data) for start, length in zip(starts, lengths, strict=True)))
    require(compression != _JPEG or all(data.startswith(b"\xff\xd8", start) for start in starts))
    bits_stored = bits[0] if colour == _YCBCR else sum(bits)  # at least: chroma may be stored smaller
    require(compression != 1 or sum(lengths) >= width * height * bits_stored // 8)
    return pixels
