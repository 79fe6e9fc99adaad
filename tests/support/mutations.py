"""Seeded damage to image files: what disks, networks, editors and hostile clients do to them.

`good_files` encodes photographs in every form that is accepted, and `damaged` breaks one of them in one of `KINDS`.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.support.image_files import encode

FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF")

Rng = np.random.Generator
Segments = list[tuple[int, int]]
Encode = Callable[[Image.Image], bytes]
Damage = Callable[[bytes, Rng], bytes]


def _as(kind: str, mode: str = "RGB", **options: Any) -> Encode:
    return lambda image: encode(image.convert(mode), kind, **options)


def _translucent(kind: str, **options: Any) -> Encode:
    def encoded(image: Image.Image) -> bytes:
        image = image.convert("RGB")
        image.putalpha(image.convert("L"))
        return encode(image, kind, **options)

    return encoded


def _animated(kind: str, **options: Any) -> Encode:
    def encoded(image: Image.Image) -> bytes:
        frames = [image.convert("RGB"), image.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)

    return encoded


def _sixteen_bits(kind: str) -> Encode:
    return lambda image: encode(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), kind)


def _turned(kind: str) -> Encode:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _as(kind, exif=exif)


ENCODINGS: dict[str, Encode] = {
    "JPEG 4:2:0": _as("JPEG", quality=75),
    "JPEG of low quality": _as("JPEG", quality=20),
    "JPEG 4:4:4": _as("JPEG", quality=95, subsampling=0),
    "JPEG 4:2:2, own tables": _as("JPEG", quality=85, subsampling=1, optimize=True),
    "JPEG, progressive": _as("JPEG", quality=80, progressive=True),
    "JPEG, restarts": _as("JPEG", quality=80, restart_marker_rows=1),
    "JPEG, grey": _as("JPEG", "L"),
    "JPEG, grey, progressive": _as("JPEG", "L", progressive=True),
    "JPEG, CMYK": _as("JPEG", "CMYK"),
    "JPEG, EXIF": _turned("JPEG"),
    "JPEG, colour profile": _as("JPEG", icc_profile=bytes(range(256)) * 12),
    "PNG": _as("PNG"),
    "PNG, fast": _as("PNG", compress_level=1),
    "PNG, grey": _as("PNG", "L"),
    "PNG, black and white": _as("PNG", "1"),
    "PNG, palette": _as("PNG", "P"),
    "PNG, alpha": _translucent("PNG"),
    "PNG, grey and alpha": _as("PNG", "LA"),
    "PNG, 16 bits": _sixteen_bits("PNG"),
    "PNG, animated": _animated("PNG"),
    "PNG, EXIF": _turned("PNG"),
    "WebP": _as("WEBP", quality=80, method=4),
    "WebP, fast": _as("WEBP", quality=75, method=0),
    "WebP of low quality": _as("WEBP", quality=10),
    "WebP of high quality": _as("WEBP", quality=98),
    "WebP, lossless": _as("WEBP", lossless=True, method=1),
    "WebP, alpha": _translucent("WEBP", method=1),
    "WebP, lossless, alpha": _translucent("WEBP", lossless=True, method=0, exact=True),
    "WebP, animated": _animated("WEBP", method=0),
    "WebP, EXIF": _turned("WEBP"),
    "BMP": _as("BMP"),
    "BMP, grey": _as("BMP", "L"),
    "BMP, palette": _as("BMP", "P"),
    "BMP, black and white": _as("BMP", "1"),
    "BMP, alpha": _translucent("BMP"),
    "TIFF": _as("TIFF"),
    "TIFF, grey": _as("TIFF", "L"),
    "TIFF, palette": _as("TIFF", "P"),
    "TIFF, alpha": _translucent("TIFF"),
    "TIFF, CMYK": _as("TIFF", "CMYK"),
    "TIFF, 16 bits": _sixteen_bits("TIFF"),
    "TIFF, LZW": _as("TIFF", compression="tiff_lzw"),
    "TIFF, Deflate": _as("TIFF", compression="tiff_adobe_deflate"),
    "TIFF, PackBits": _as("TIFF", compression="packbits"),
    "TIFF, JPEG": _as("TIFF", compression="jpeg"),
}
"""One encoding a line: its name begins with its format."""


@dataclass(frozen=True)
class GoodFile:
    format: str
    encoding: str
    data: bytes


def good_files(photographs: Sequence[Image.Image], count: int, *, seed: int, sides: tuple[int, int]) -> list[GoodFile]:
    """`count` files: every encoding in turn, of a random part of a photograph, its sides within `sides`."""
    rng = np.random.default_rng(seed)
    files = []
    for index in range(count):
        name = list(ENCODINGS)[index % len(ENCODINGS)]
        data = ENCODINGS[name](_part(photographs[int(rng.integers(len(photographs)))], sides, rng))
        files.append(GoodFile(name.replace(",", " ").split()[0], name, data))
    return files


def _part(photograph: Image.Image, sides: tuple[int, int], rng: Rng) -> Image.Image:
    width, height = rng.integers(sides[0], sides[1] + 1, 2).tolist()
    across, down = (rng.uniform(0.4, 1) * side for side in photograph.size)
    left, top = rng.uniform(0, photograph.width - across), rng.uniform(0, photograph.height - down)
    return photograph.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + across, top + down))


def segments(data: bytes) -> Segments:
    """Where the parts of a good file begin and end, in order: markers, chunks, or header, tables and pixels."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_segments(data)
    if data.startswith(b"\x89PNG"):
        return _chunks(data, first=8, layout=">I4x", overhead=12)
    if data.startswith(b"RIFF"):
        return _chunks(data, first=12, layout="<4xI", overhead=8)
    if data.startswith(b"BM"):
        (pixels,) = struct.unpack_from("<I", data, 10)
        return [(0, 14), (14, pixels), (pixels, len(data))]
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    end = directory + 2 + 12 * entries + 4
    return [part for part in ((0, 8), (8, directory), (directory, end), (end, len(data))) if part[0] < part[1]]


def _jpeg_segments(data: bytes) -> Segments:
    found, position = [(0, 2)], 2
    while data[position + 1] != 0xD9:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == 0xDA:
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
        found.append((position, end))
        position = end
    return [*found, (position, len(data))]


def _chunks(data: bytes, *, first: int, layout: str, overhead: int) -> Segments:
    found, position = [(0, first)], first
    while position < len(data):
        (length,) = struct.unpack_from(layout, data, position)
        end = position + overhead + length + (length % 2 if overhead == 8 else 0)
        found.append((position, end))
        position = end
    return found


def _pixels(data: bytes) -> tuple[int, int]:
    """The part that holds pixels: the longest one; in a JPEG the data of its longest scan."""
    start, end = max(segments(data), key=lambda part: part[1] - part[0])
    if data[start : start + 2] == b"\xff\xda":
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    elif data.startswith((b"\x89PNG", b"RIFF")):
        start += 8
    return start, end - 4 if data.startswith(b"\x89PNG") else end


def _mended(data: bytes) -> bytes:
    """The checksums of a PNG made right again, as a program does that changed it; other formats have none."""
    if not data.startswith(b"\x89PNG"):
        return data
    mended = bytearray(data)
    position = 8
    while position + 12 <= len(mended):
        end = position + 8 + int.from_bytes(mended[position : position + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(mended[position + 4 : end]))
        position = end + 4
    return bytes(mended)


def _range(data: bytes, rng: Rng) -> tuple[int, int]:
    """A random range of 1 byte to a fifth of the file."""
    length = 1 + int(len(data) // 5 * rng.random() ** 3)
    start = int(rng.integers(len(data) - length))
    return start, start + length


def _changed(data: bytes, low: int, high: int, count: int, rng: Rng) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(low, high, count).tolist():
        changed[position] = (changed[position] + int(rng.integers(1, 256))) % 256
    return bytes(changed)


def _cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(1, len(data))]


def _cut_and_closed(data: bytes, rng: Rng) -> bytes:
    """Cut among the pixels, and made to look whole: end marker, lengths, checksums, or as many bytes as before."""
    low, high = _pixels(data)
    kept = data[: rng.integers(low + 1, high)]
    if data.startswith(b"\xff\xd8"):
        return kept + b"\xff\xd9"
    if data.startswith(b"\x89PNG"):
        (start,) = (start for start, end in segments(data) if start < low < end)
        payload = kept[start + 8 :]
        chunk = struct.pack(">I", len(payload)) + kept[start + 4 : start + 8] + payload + bytes(4)
        return _mended(kept[:start] + chunk + b"\0\0\0\0IEND" + bytes(4))
    if data.startswith(b"RIFF"):
        kept += bytes(len(kept) % 2)
        chunk = kept[: low - 4] + struct.pack("<I", len(kept) - low) + kept[low:]
        return chunk[:4] + struct.pack("<I", len(chunk) - 8) + chunk[8:]
    return kept.ljust(len(data), b"\0")


def _bit_flipped(data: bytes, rng: Rng) -> bytes:
    position = int(rng.integers(len(data)))
    return data[:position] + bytes([data[position] ^ 1 << int(rng.integers(8))]) + data[position + 1 :]


def _header_changed(data: bytes, rng: Rng) -> bytes:
    """One to three bytes outside the pixels."""
    low, high = _pixels(data)
    header = [*range(min(low, 4096)), *range(high, min(len(data), high + 4096))]
    changed = bytearray(data)
    for position in rng.choice(header, int(rng.integers(1, 4))).tolist():
        changed[position] = int(rng.integers(256))
    return _mended(bytes(changed))


def _in_range(change: Callable[[bytes, Rng], bytes], *, keeps: bool = False) -> Damage:
    """A random range of the file changed; `keeps`: the changed bytes come after it."""

    def damage(data: bytes, rng: Rng) -> bytes:
        start, end = _range(data, rng)
        return data[: end if keeps else start] + change(data[start:end], rng) + data[end:]

    return damage


def _swapped(data: bytes, rng: Rng) -> bytes:
    a, b, c, d = sorted(rng.integers(0, len(data) + 1, 4).tolist())
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _junk_inserted(data: bytes, rng: Rng) -> bytes:
    position = int(rng.integers(len(data)))
    return data[:position] + rng.bytes(int(rng.integers(1, 65))) + data[position:]


def _segments_changed(change: Callable[[list[bytes], Rng], object]) -> Damage:
    def damage(data: bytes, rng: Rng) -> bytes:
        parts = [data[start:end] for start, end in segments(data)]
        change(parts, rng)
        return b"".join(parts)

    return damage


def _one_repeated(parts: list[bytes], rng: Rng) -> None:
    index = int(rng.integers(len(parts)))
    parts.insert(int(rng.integers(index, len(parts))), parts[index])


def _two_swapped(parts: list[bytes], rng: Rng) -> None:
    one, other = rng.choice(len(parts), 2, replace=False).tolist()
    parts[one], parts[other] = parts[other], parts[one]


KINDS: dict[str, Damage] = {
    "cut": _cut,
    "cut and closed": _cut_and_closed,
    "tail zeroed": lambda data, rng: _cut(data, rng).ljust(len(data), b"\0"),
    "one bit flipped": _bit_flipped,
    "bytes changed": lambda data, rng: _changed(data, 0, len(data), int(rng.integers(2, 17)), rng),
    "pixels changed": lambda data, rng: _mended(_changed(data, *_pixels(data), int(rng.integers(1, 5)), rng)),
    "header changed": _header_changed,
    "range zeroed": _in_range(lambda part, _: bytes(len(part))),
    "range overwritten": _in_range(lambda part, rng: rng.bytes(len(part))),
    "range removed": _in_range(lambda *_: b""),
    "range repeated": _in_range(lambda part, _: part, keeps=True),
    "ranges swapped": _swapped,
    "junk inserted": _junk_inserted,
    "junk appended": lambda data, rng: data + rng.bytes(int(rng.integers(1, 4097))),
    "line ends changed": lambda data, rng: data.replace(
        *((b"\r\n", b"\n") if rng.random() < 0.5 else (b"\n", b"\r\n"))
    ),
    "segment repeated": _segments_changed(_one_repeated),
    "segment removed": _segments_changed(lambda parts, rng: parts.pop(int(rng.integers(1, len(parts))))),
    "segments swapped": _segments_changed(_two_swapped),
}


EDITS = frozenset({"cut and closed", "pixels changed", "header changed", "segment repeated", "segment removed"})
EDITS |= {"segments swapped"}
"""What programs and hostile clients do, and no disk: the file looks whole, and a PNG's checksums are right."""


def damaged(files: Sequence[GoodFile], count: int, *, seed: int) -> Iterator[tuple[GoodFile, str, bytes]]:
    """`count` damaged files: each kind of damage in turn, to a random file. Equal arguments give equal bytes."""
    rng = np.random.default_rng(seed)
    names = list(KINDS)
    for index in range(count):
        file, kind = files[int(rng.integers(len(files)))], names[index % len(names)]
        yield file, kind, KINDS[kind](file.data, rng)
