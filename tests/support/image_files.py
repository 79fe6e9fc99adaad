"""Image files of every kind, the parts that they consist of, and what is said of a bad one."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from slipway.steps.guard import CORRUPT, OK

Cases = Iterator[tuple[str, bytes, set[int] | frozenset[int]]]
"""Name, bytes, and the statuses that are acceptable end to end."""


DQT, SOF, DHT, SOS = 0xDB, 0xC0, 0xC4, 0xDA
"""Markers of a JPEG's segments."""

JUDGED_BY_DECODER = frozenset({OK, CORRUPT})


def photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A smooth RGB image with some noise on it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def good_images(count: int, seed: int) -> list[bytes]:
    """`count` valid JPEG, PNG and WebP files of 48 to 512 pixels a side, in the kinds that users send."""
    rng = np.random.default_rng(seed)
    writers: tuple[Callable[[Image.Image], bytes], ...] = (
        lambda image: encode(image, "JPEG", quality=75),
        lambda image: encode(image, "PNG", compress_level=1),
        lambda image: encode(image, "WEBP", method=0),
        lambda image: encode(image, "JPEG", progressive=True, subsampling=0),
        lambda image: encode(image.quantize(64), "PNG", compress_level=1),
        lambda image: encode(image.convert("L"), "JPEG", restart_marker_blocks=8),
        lambda image: encode(image.convert("RGBA"), "WEBP", method=0, lossless=True, exact=True),
    )
    sizes = rng.integers(48, 513, (count, 2)).tolist()
    return [writers[i % len(writers)](photo(*size, seed=seed + i)) for i, size in enumerate(sizes)]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of Pillow's format `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """One PNG chunk with its right checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def jpeg_segment(data: bytes, marker: int) -> int:
    """Where the first segment with this marker begins: the position of its 0xFF."""
    position = 2
    while data[position + 1] != marker:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position


def without_segments(data: bytes, marker: int) -> bytes:
    """A JPEG without its segments of this marker."""
    position = 2
    while data[position + 1] != 0xD9:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == marker:
            data, end = data[:position] + data[end:], position
        elif data[position + 1] == SOS:
            end = data.index(b"\xff", end)
            while data[end + 1] == 0 or data[end + 1] in range(0xD0, 0xD8):
                end = data.index(b"\xff", end + 1)
        position = end
    return data


def webp_file(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for kind, c in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a good WebP."""
    chunks, position = [], 12
    while position < len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    return chunks


def exif_of(*entries: tuple[int, int, int, int], count: int | None = None) -> bytes:
    """EXIF of these entries (tag, type, count, the four bytes of the value), that says it has `count` of them."""
    packed = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"MM\0*" + struct.pack(">IH", 8, len(entries) if count is None else count) + packed + bytes(4)


def flipped(data: bytes, *positions: int) -> bytes:
    """The data with all bits flipped of the bytes at these positions."""
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= 0xFF
    return bytes(damaged)
