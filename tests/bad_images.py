"""Images that must not hurt: every kind of single-image request body that `inspect` and the decoder have to survive.

Each case names the statuses that are right for it at the end of the whole preprocessing step. `{OK, CORRUPT}` stands
for damage inside compressed data, which the guard cannot see: there the decoder is the judge.
"""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from slipway.steps.guard import CORRUPT, EMPTY, OK, TOO_LARGE, UNSUPPORTED

JUDGED_BY_DECODER = frozenset({OK, CORRUPT})

# 8x8 pixels each, from libjpeg-turbo: Pillow writes none of these kinds.
ARITHMETIC_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/yQARCAAIAAgD"
    "ASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD7wmAKNKjD3s3wlW/bLQzBRwVQ/9k="
)
ARITHMETIC_PROGRESSIVE_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/ygARCAAIAAgD"
    "ASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAfX3RP/MAAQQBf/aAAgBAQABBQIUQoD/zAAEEQX/2gAIAQMBAT8BpaD/zAAEEQX/2gAIAQIB"
    "AT8BNUUL+v/MAAQQBf/aAAgBAQAGPwLA/8wABBAF/9oACAEBAAE/IaiA/9oADAMBAAIAAwAAABBY/8wABBEF/9oACAEDAQE/EL6A/8wABBEF/9oA"
    "CAECAQE/EKz8/8wABBAF/9oACAEBAAE/EKY4/9k="
)
LOSSLESS_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgACAAIA1IRAEcRAEIRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAQFCAf/2gAMA1IARwBCAAEAAM/5/wC/sqDZ"
    "UGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqDqMls"
    "qDZUGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqDqMlsqDZUGyoNlQbKg2VBsqD//Z"
)
TWELVE_BIT_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACP/EABoQAAEFAQAAAAAAAAAAAAAAAAkAJjVEUuH/2gAIAQEAAD8AP4wQMxDT"
    "xX4v/9k="
)

# 8x8 pixels, chroma of 4x4, not compressed: from ffmpeg.
SUBSAMPLED_TIFF = base64.b64decode(
    "SUkqALwAAAAhRD9nbJl3pZWWZKCfeq+dY6CDmnyTYaNqX3lZYayIeGynYKaLl6BlYqV+lXiCYKaFXoBOY6hARDUjb6FLT0tQa6Noa11oYqiUT618"
    "aJs0Gyg0dJo3SDgyb59YaGhsYqUIAAgACABIAAAAAQAAAEgAAAABAAAATGF2YzYyLjI4LjEwMgAPAAAAAQAAAOsAAAABAAAAgAAAAAEAAADwAAAA"
    "AQAAAIAAAAABAAAA8AAAAAEAAAAQAP4ABAABAAAAAAAAAAABBAABAAAACAAAAAEBBAABAAAACAAAAAIBAwADAAAAaAAAAAMBAwABAAAAAQAAAAYB"
    "AwABAAAABgAAABEBBAABAAAACAAAABUBAwABAAAAAwAAABYBBAABAAAAdgIAABcBBAABAAAAYAAAABoBBQABAAAAbgAAABsBBQABAAAAdgAAACgB"
    "AwABAAAAAgAAADEBAgAOAAAAfgAAABICAwACAAAAAgACABQCBQAGAAAAjAAAAAAAAAA="
)


@dataclass(frozen=True)
class Case:
    """One request body."""

    name: str
    data: bytes
    expected: frozenset[int]
    """The statuses that are acceptable end to end."""


def corpus() -> list[Case]:
    """Every case, in the order of shared/bad-inputs.md; the same bytes on every call."""
    groups = (_not_images, _jpeg_damage, _jpeg_tables, _jpeg_kinds, _png_damage, _png_bombs, _png_kinds, _webp)
    groups += (_webp_parts, _bmp, _tiff, _exif, _shapes)
    cases = [Case(name, data, frozenset(expected)) for name, data, expected in chain(*(group() for group in groups))]
    assert len({case.name for case in cases}) == len(cases)
    return cases


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


def photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A smooth RGB image with some noise on it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


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
        elif data[position + 1] == _SOS:
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


def flipped(data: bytes, *positions: int) -> bytes:
    """The data with all bits flipped of the bytes at these positions."""
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= 0xFF
    return bytes(damaged)


_Cases = Iterator[tuple[str, bytes, set[int] | frozenset[int]]]

_DQT, _SOF, _DHT, _SOS = 0xDB, 0xC0, 0xC4, 0xDA


def _not_images() -> _Cases:
    jpeg = encode(photo(96, 64), "JPEG")
    yield "nothing", b"", {EMPTY}
    yield "one byte", b"\xff", {UNSUPPORTED}
    yield "text", b"a cat on a mat\n" * 20, {UNSUPPORTED}
    yield "JSON", json.dumps({"image": "cat.jpg"}).encode(), {UNSUPPORTED}
    yield "base64 of a JPEG", base64.b64encode(jpeg), {UNSUPPORTED}
    yield "PDF", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF\n", {UNSUPPORTED}
    yield "SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', {UNSUPPORTED}
    yield "HEIC signature", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), {UNSUPPORTED}
    yield "GIF", encode(photo(96, 64), "GIF"), {UNSUPPORTED}
    yield "JPEG 2000", encode(photo(96, 64), "JPEG2000"), {UNSUPPORTED}
    yield "zeros", bytes(1000), {UNSUPPORTED}
    yield "newline before a JPEG", b"\n" + jpeg, {UNSUPPORTED}
    yield "more than 32 MiB", jpeg + bytes(32 * 1024 * 1024), {TOO_LARGE}


def _jpeg_damage() -> _Cases:
    jpeg = encode(photo(160, 120), "JPEG")
    quantisation, frame, huffman, scan = (jpeg_segment(jpeg, marker) for marker in (_DQT, _SOF, _DHT, _SOS))
    half, nearly = len(jpeg) // 2, len(jpeg) * 99 // 100
    for place, length in {"SOI": 2, "SOF": frame + 6, "SOS": scan + 5, "50 %": half, "99 %": nearly}.items():
        yield f"JPEG cut at {place}", jpeg[:length], {CORRUPT}
    yield "JPEG without its last byte", jpeg[:-1], {CORRUPT}
    yield "JPEG with an end but no scan", jpeg[:scan] + b"\xff\xd9", {CORRUPT}
    yield "JPEG with a scan but no frame", jpeg[:frame] + jpeg[frame + 19 :], {CORRUPT}
    yield "JPEG with two frames", jpeg[:frame] + jpeg[frame : frame + 19] + jpeg[frame:], {CORRUPT}
    yield "JPEG segment of length 1", jpeg[:2] + b"\xff\xfe\0\1" + jpeg[2:], {CORRUPT}
    yield "JPEG with junk between segments", jpeg[:frame] + b"junk" + jpeg[frame:], {CORRUPT}
    yield "JPEG of 100,000 comments", jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:], {CORRUPT}
    yield "JPEG of no width", jpeg[: frame + 7] + b"\0\0" + jpeg[frame + 9 :], {CORRUPT}
    yield "JPEG of no height", jpeg[: frame + 5] + b"\0\0" + jpeg[frame + 7 :], {CORRUPT}
    yield "JPEG of 65535x65535", jpeg[: frame + 5] + b"\xff" * 4 + jpeg[frame + 9 :], {TOO_LARGE}
    yield "JPEG cut and closed", jpeg[:half] + b"\xff\xd9", JUDGED_BY_DECODER
    yield "JPEG with flipped Huffman lengths", flipped(jpeg, huffman + 6, huffman + 9), {CORRUPT}
    yield "JPEG with flipped Huffman values", flipped(jpeg, huffman + 22), {CORRUPT}
    yield (
        "JPEG with flipped quantisation",
        flipped(jpeg, *range(quantisation + 5, quantisation + 12)),
        JUDGED_BY_DECODER,
    )
    yield "JPEG with a flipped table number", flipped(jpeg, quantisation + 4), {CORRUPT}
    entropy = [position for position in range(scan + 40, len(jpeg) - 9, 97) if jpeg[position] not in {0x00, 0xFF}]
    yield "JPEG with flipped pixels", flipped(jpeg, *entropy), JUDGED_BY_DECODER
    yield "JPEG with garbage after it", jpeg + bytes(range(256)), {OK}
    yield "JPEG/ZIP polyglot", jpeg + b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18), {OK}
    yield "two JPEGs in one", jpeg + jpeg, {OK}
    progressive = encode(photo(160, 120), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "progressive JPEG of 1,000 scans", progressive[:-2] + last_scan * 1000 + b"\xff\xd9", {TOO_LARGE}
    yield "progressive JPEG cut between scans", progressive[: -2 - len(last_scan)], {CORRUPT}


def _jpeg_tables() -> _Cases:
    """What libjpeg-turbo refuses though every segment is whole, and what it takes though something is missing."""
    jpeg, progressive = encode(photo(160, 120), "JPEG"), encode(photo(160, 120), "JPEG", progressive=True)
    frame, scan = jpeg_segment(jpeg, _SOF), jpeg_segment(jpeg, _SOS)
    # A sequential JPEG without Huffman tables has the standard ones, which are those that Pillow writes.
    yield "JPEG without Huffman tables", without_segments(jpeg, _DHT), {OK}
    yield "progressive JPEG without Huffman tables", without_segments(progressive, _DHT), {CORRUPT}
    yield "JPEG without quantisation tables", without_segments(jpeg, _DQT), {CORRUPT}
    full = struct.pack(">HB16B3B", 22, 3, 3, *bytes(15), 0, 1, 2)  # three codes of one bit each
    yield "JPEG with a bad table that nobody needs", jpeg[:2] + b"\xff\xc4" + full + jpeg[2:], {OK}
    yield "JPEG with a table of half its length", jpeg[:2] + b"\xff\xdb\0\x23\3" + bytes(32) + jpeg[2:], {CORRUPT}
    yield "JPEG with a restart interval of one byte", jpeg[:2] + b"\xff\xdd\0\3\0" + jpeg[2:], {CORRUPT}
    for name, position, value, expected in (
        ("JPEG of five samples a unit", frame + 11, 0x51, CORRUPT),
        ("JPEG of 16 blocks a unit", frame + 11, 0x44, CORRUPT),
        ("JPEG whose chroma is a third of a half", frame + 14, 0x31, UNSUPPORTED),
        ("JPEG whose scan names a component that is not there", scan + 5, 9, CORRUPT),
        ("JPEG whose scan names a component twice", scan + 7, jpeg[scan + 5], CORRUPT),
        ("JPEG whose scan names a table that is not there", scan + 6, 0x20, CORRUPT),
        ("JPEG whose scan has no component", scan + 4, 0, CORRUPT),
    ):
        yield name, jpeg[:position] + bytes([value]) + jpeg[position + 1 :], {expected}
    size = struct.pack(">HH", 8000, 8000)
    yield "JPEG of 8000x8000 with the data of 160x120", jpeg[: frame + 5] + size + jpeg[frame + 9 :], {CORRUPT}


def _jpeg_kinds() -> _Cases:
    image = photo(160, 120)
    jpeg, cmyk = encode(image, "JPEG"), encode(image.convert("CMYK"), "JPEG")
    frame, adobe = jpeg_segment(jpeg, _SOF), cmyk.index(b"Adobe")
    yield "JPEG", jpeg, {OK}
    yield "progressive JPEG", encode(image, "JPEG", progressive=True), {OK}
    yield "JPEG with restarts", encode(image, "JPEG", restart_marker_blocks=3), {OK}
    yield "grey JPEG", encode(image.convert("L"), "JPEG"), {OK}
    yield "CMYK JPEG", cmyk, {OK}
    yield "YCCK JPEG", cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :], {OK}
    yield "arithmetic JPEG", ARITHMETIC_JPEG, {OK}
    yield "arithmetic progressive JPEG", ARITHMETIC_PROGRESSIVE_JPEG, {OK}
    yield "lossless JPEG", LOSSLESS_JPEG, {UNSUPPORTED}
    yield "12-bit JPEG", TWELVE_BIT_JPEG, {UNSUPPORTED}
    for marker in (0xC5, 0xC7, 0xCB, 0xCF):
        data = jpeg[: frame + 1] + bytes([marker]) + jpeg[frame + 2 :]
        yield f"JPEG that says frame {marker:X}", data, {UNSUPPORTED}
    yield "JPEG with a large colour profile", encode(image, "JPEG", icc_profile=bytes(200_000)), {OK}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"JPEG of EXIF orientation {orientation}", encode(image, "JPEG", exif=exif), {OK}
    yield "JPEG with broken EXIF", encode(image, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40), {OK}


def _png_damage() -> _Cases:
    png = encode(photo(96, 64), "PNG")
    data_at = png.index(b"IDAT") - 4
    data_length = int.from_bytes(png[data_at : data_at + 4], "big")
    after_data = data_at + 12 + data_length
    half = png[data_at + 8 : data_at + 8 + data_length // 2]
    yield "PNG cut in its data", png[: data_at + 8 + data_length // 2], {CORRUPT}
    yield "PNG without its end", png[:-12], {CORRUPT}
    yield "PNG without data", png[:data_at] + png[after_data:], {CORRUPT}
    yield "PNG with a bad header checksum", flipped(png, 29), {CORRUPT}
    yield "PNG with a bad data checksum", flipped(png, after_data - 1), {CORRUPT}
    yield "PNG with flipped data", flipped(png, data_at + 100), {CORRUPT}
    yield "PNG with half of its data", png[:data_at] + png_chunk(b"IDAT", half) + png[after_data:], JUDGED_BY_DECODER
    mended = png_chunk(b"IDAT", flipped(png[data_at + 8 : after_data - 4], 100, 200))
    yield "PNG with flipped data and a right checksum", png[:data_at] + mended + png[after_data:], JUDGED_BY_DECODER
    # DALI 2.4 takes ten seconds and four gigabytes for this one.
    yield "PNG chunk of 4 GiB", png[:33] + b"\xff\xff\xff\xff" + png[37:], {CORRUPT}
    yield "PNG of 100,000 chunks", png[:33] + png_chunk(b"teSt", b"") * 100_000 + png[33:], {CORRUPT}
    yield "PNG with its header twice", png[:33] + png[8:], {CORRUPT}
    yield "PNG with something before its header", png[:8] + png_chunk(b"teSt", b"") + png[8:], {CORRUPT}
    for name, header, expected in (
        ("PNG of 100k x 100k", (100_000, 100_000, 8, 2, 0, 0, 0), TOO_LARGE),
        ("PNG of 1 x 500M", (1, 500_000_000, 8, 0, 0, 0, 0), TOO_LARGE),
        ("PNG of no width", (0, 64, 8, 2, 0, 0, 0), CORRUPT),
        ("PNG of 3 bits", (96, 64, 3, 2, 0, 0, 0), CORRUPT),
    ):
        yield name, png[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + png[33:], {expected}
    yield "PNG with garbage after it", png + bytes(range(256)), {OK}


def _png_bombs() -> _Cases:
    png = encode(photo(96, 64), "PNG")
    zeros = zlib.compress(bytes(64 * 1024 * 1024))
    for kind, payload in {b"zTXt": b"note\0\0" + zeros, b"iCCP": b"profile\0\0" + zeros}.items():
        yield f"PNG with a {kind.decode()} bomb", png[:33] + png_chunk(kind, payload) + png[33:], {OK}
    # Two seconds in libpng, and a thousand of them 22.
    bombs = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(8_000_000))) * 100
    yield "PNG with a hundred text bombs", png[:33] + bombs + png[33:], {TOO_LARGE}
    header, end = png[:33], png_chunk(b"IEND", b"")
    packer = zlib.compressobj()
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated
    data = png_chunk(b"IDAT", block + block[2:] * (5 * 2**20 // len(block)))
    yield "PNG of 5 MiB that inflates to 5 GB", header + data + end, {TOO_LARGE}
    header = png[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0))
    yield "PNG of 8000x8000 with the data of 96x64", header + png[33:], {CORRUPT}


def _png_kinds() -> _Cases:
    image = photo(96, 64)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"PNG of mode {mode}", encode(image.convert(mode), "PNG"), {OK}
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    yield "PNG of 16-bit grey", encode(Image.fromarray(grey), "PNG"), {OK}
    yield "PNG with a transparent colour", encode(image.quantize(16), "PNG", transparency=0), {OK}
    rows = np.zeros((64, 1 + 96 * 6), np.uint8)
    rows[:, 1:] = np.repeat(np.asarray(image).reshape(64, -1), 2, axis=1)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows.tobytes()))
    yield "PNG of 16-bit RGB", b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b""), {OK}
    yield "animated PNG", encode(image, "PNG", save_all=True, append_images=[photo(96, 64, seed=1)]), {OK}
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "PNG of EXIF orientation 6", encode(image, "PNG", exif=exif), {OK}


def _webp() -> _Cases:
    image = photo(96, 64)
    lossy, lossless = encode(image, "WEBP"), encode(image, "WEBP", lossless=True)
    translucent = image.copy()
    translucent.putalpha(image.convert("L"))
    animated = encode(image, "WEBP", save_all=True, append_images=[photo(96, 64, seed=1)])
    yield "WebP", lossy, {OK}
    yield "lossless WebP", lossless, {OK}
    yield "WebP with alpha", encode(translucent, "WEBP"), {OK}
    yield "lossless WebP with alpha", encode(translucent, "WEBP", lossless=True), {OK}
    yield "animated WebP", animated, {OK}
    yield "WebP with garbage after it", lossy + bytes(99), {OK}
    yield "WebP cut", lossy[: len(lossy) // 2], {CORRUPT}
    half = lossy[8 : len(lossy) // 2]
    yield "WebP cut, with its length mended", b"RIFF" + struct.pack("<I", len(half)) + half, {CORRUPT}
    ((chunk, pixels),) = webp_chunks(lossy)
    yield "WebP cut, with all its lengths mended", webp_file((chunk, pixels[: len(pixels) // 2])), JUDGED_BY_DECODER
    yield "lossless WebP of 16384x16384", lossless[:21] + b"\xff\xff\xff\x0f" + lossless[25:], {TOO_LARGE}
    yield "lossy WebP of 16383x16383", lossy[:26] + b"\xff\x3f\xff\x3f" + lossy[30:], {TOO_LARGE}
    yield "animated WebP of 16M x 16M", animated[:24] + b"\xff" * 6 + animated[30:], {TOO_LARGE}
    yield "WebP with flipped data", flipped(lossy, *range(60, len(lossy), 50)), JUDGED_BY_DECODER


def _webp_parts() -> _Cases:
    """Files that are whole, and whose parts do not fit each other."""
    exif = Image.Exif()
    exif[0x0112] = 6
    ((image, lossy),) = webp_chunks(encode(photo(96, 64), "WEBP"))
    odd = (webp_chunks(encode(photo(96 + side, 64), "WEBP", lossless=True, exif=exif)) for side in range(32))
    header, lossless, orientation = next(chunks for chunks in odd if len(chunks[1][1]) % 2)
    # DALI 2.4 refuses these two as they are: `guard.for_decoder` mends them.
    yield "lossless WebP of EXIF orientation 6, of odd length", webp_file(header, lossless, orientation), {OK}
    yield "lossless WebP that says it has EXIF and has none", webp_file(header, lossless), {OK}
    smaller = header[1][:4] + b"\x5e" + header[1][5:]
    yield "WebP on a canvas of another size", webp_file((b"VP8X", smaller), lossless, orientation), {CORRUPT}
    tag = int.from_bytes(lossy[:3], "little")
    for name, changed in (
        ("WebP that is no key frame", tag | 1),
        ("WebP of an unknown profile", tag | 0b1000),
        ("WebP that is not shown", tag & ~0b10000),
        ("WebP whose first part is longer than it", tag & 0b11111 | len(lossy) << 5),
    ):
        yield name, webp_file((image, changed.to_bytes(3, "little") + lossy[3:])), {CORRUPT}
    frames = webp_chunks(encode(photo(96, 64), "WEBP", save_all=True, append_images=[photo(96, 64, seed=1)]))
    canvas, animation, first, second = frames
    yield "animated WebP of one frame", webp_file(canvas, animation, first), {OK}
    yield "animated WebP without its header", webp_file(canvas, first, second), {CORRUPT}
    yield "animated WebP without frames", webp_file(canvas, animation), {CORRUPT}
    outside, empty = (b"ANMF", b"\5" + second[1][1:]), (b"ANMF", second[1][:16])
    yield "animated WebP with a frame outside", webp_file(canvas, animation, first, outside), {CORRUPT}
    yield "animated WebP with an empty frame", webp_file(canvas, animation, first, empty), {CORRUPT}
    enormous = struct.pack("<4sIBI", b"VP8L", 5, 0x2F, 0x0FFFFFFF) + b"\0"
    huge = (b"ANMF", first[1][:16] + enormous)
    yield "animated WebP with a frame of 16384x16384", webp_file(canvas, animation, huge), {TOO_LARGE}


def _bmp() -> _Cases:
    image = photo(96, 64)
    bmp = encode(image, "BMP")
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"BMP of mode {mode}", encode(image.convert(mode), "BMP"), {OK}
    yield "BMP that starts at the top", bmp[:22] + struct.pack("<i", -64) + bmp[26:], {OK}
    yield "BMP cut", bmp[:-1], {CORRUPT}
    yield "BMP with its pixels elsewhere", bmp[:10] + struct.pack("<I", 10**6) + bmp[14:], {CORRUPT}
    yield "BMP of 100k x 100k", bmp[:18] + struct.pack("<ii", 100_000, 100_000) + bmp[26:], {TOO_LARGE}
    yield "BMP of negative width", bmp[:18] + struct.pack("<i", -96) + bmp[22:], {CORRUPT}
    yield "BMP of run lengths", bmp[:28] + struct.pack("<HI", 8, 1) + bmp[34:], {UNSUPPORTED}
    palette = encode(image.convert("P"), "BMP")
    yield "BMP of 300 colours", palette[:46] + struct.pack("<I", 300) + palette[50:], {CORRUPT}
    yield "BMP with its pixels in its palette", palette[:10] + struct.pack("<I", 54) + palette[14:], {CORRUPT}
    usual, swapped = (0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)
    for name, header, bits, fields, expected in (
        ("BMP of 16 bits, 5-6-5", 40, 16, (0xF800, 0x7E0, 0x1F), OK),
        ("BMP of 16 bits, 5-5-5", 40, 16, (0x7C00, 0x3E0, 0x1F), OK),
        ("BMP of 16 bits, 4-4-4", 40, 16, (0xF00, 0xF0, 0xF), UNSUPPORTED),
        ("BMP of 16 bits, 5-6-5 in a longer header", 56, 16, (0xF800, 0x7E0, 0x1F), UNSUPPORTED),
        ("BMP of 32 bits with fields", 40, 32, usual, OK),
        ("BMP of 32 bits, red first", 56, 32, swapped, OK),
        # DALI 2.4 takes red for blue here.
        ("BMP of 32 bits, red first in a shorter header", 40, 32, swapped, UNSUPPORTED),
    ):
        yield name, _bmp_of_fields(header, bits, fields), {expected}


def _bmp_of_fields(header: int, bits: int, fields: tuple[int, int, int]) -> bytes:
    """32x32 pixels of noise, whose channels lie where `fields` says."""
    masks = struct.pack("<4I", *fields, 0)[: max(12, header - 40)]
    pixels = np.random.default_rng(bits).integers(0, 256, 32 * 32 * bits // 8, np.uint8).tobytes()
    start = 14 + 40 + len(masks)
    size = struct.pack("<IiiHHIIiiII", header, 32, 32, 1, bits, 3, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + size + masks + pixels


def _tiff() -> _Cases:
    image = photo(96, 64)
    for mode in ("L", "P", "RGB", "RGBA", "CMYK"):
        yield f"TIFF of mode {mode}", encode(image.convert(mode), "TIFF"), {OK}
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"TIFF of compression {compression}", encode(image, "TIFF", compression=compression), {OK}
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    yield "TIFF of 16-bit grey", encode(Image.fromarray(grey), "TIFF"), {OK}
    pages = encode(image, "TIFF", save_all=True, append_images=[photo(40, 30, seed=1)])
    yield "TIFF of two pages", pages, {OK}
    yield "TIFF of two pages, cut in the first", pages[: len(pages) // 2], {CORRUPT}
    yield "TIFF of two pages, cut in the second", pages[:-1], {OK}
    yield "TIFF of subsampled chroma", SUBSAMPLED_TIFF, {OK}
    # Decoded without an error, and to other colours.
    yield "TIFF of grey and alpha", encode(image.convert("LA"), "TIFF"), {UNSUPPORTED}
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "TIFF of mode RGBA and orientation 6", encode(image.convert("RGBA"), "TIFF", exif=exif), {UNSUPPORTED}
    yield "TIFF of floats", encode(image.convert("F"), "TIFF"), {UNSUPPORTED}
    yield "TIFF of 64 bits", encode(image, "TIFF", big_tiff=True), {UNSUPPORTED}
    yield "TIFF of compression lzma", encode(image, "TIFF", compression="lzma"), {UNSUPPORTED}
    yield "TIFF of black and white", encode(image.convert("1"), "TIFF"), {UNSUPPORTED}
    yield "TIFF without its last byte", encode(image, "TIFF", compression="tiff_lzw")[:-1], {CORRUPT}
    pixels = np.asarray(image).tobytes()
    tags = {256: 96, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 273: 8, 279: 96 * 64}
    tiled = {tag: value for tag, value in tags.items() if tag not in {273, 279}} | {259: 8, 324: 8, 325: 999}
    tile = zlib.compress(bytes(10_000_000))[:999]
    for name, changed, data, expected in (
        ("TIFF", tags, pixels, {OK}),
        ("TIFF of white at zero", tags | {262: 0}, pixels, {OK}),
        ("TIFF of 16 bits and white at zero", tags | {258: 16, 262: 0, 279: 2 * 96 * 64}, pixels, {UNSUPPORTED}),
        ("TIFF of 16 bits in planes", tags | {258: 16, 284: 2, 279: 2 * 96 * 64}, pixels, {UNSUPPORTED}),
        ("TIFF of 100k x 100k", tags | {256: 100_000, 257: 100_000}, pixels, {TOO_LARGE}),
        # DALI 2.4 decodes this one to black, without an error.
        ("TIFF of an unknown compression", tags | {259: 9999}, pixels, {UNSUPPORTED}),
        # Seven seconds and three gigabytes.
        ("TIFF with one tile of 32768x32768", tiled | {322: 32768, 323: 32768}, tile, {TOO_LARGE}),
        ("TIFF with pixels past its end", tags | {273: 10**6}, pixels, {CORRUPT}),
        ("TIFF with too few pixels", tags | {279: 100}, pixels, {CORRUPT}),
        ("TIFF of three planes", tags | {284: 3}, pixels, {CORRUPT}),
        ("TIFF without pixels", {tag: value for tag, value in tags.items() if tag < 273}, pixels, {CORRUPT}),
    ):
        for order in "<>":
            yield f"{name} ({'little' if order == '<' else 'big'}-endian)", _tiff_file(changed, data, order), expected


def _tiff_file(tags: dict[int, int], pixels: bytes, order: str) -> bytes:
    signature = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags))
    for tag, value in sorted(tags.items()):
        layout = "HHIHxx" if value <= 0xFFFF and tag not in {273, 279, 324, 325} else "HHII"
        directory += struct.pack(order + layout, tag, 3 if layout.endswith("Hxx") else 4, 1, value)
    directory += bytes(4)
    return signature + struct.pack(order + "I", 8 + len(pixels)) + pixels + directory


def _exif() -> _Cases:
    """EXIF that DALI 2.4 reads in two ways, once for the size of its buffer and once to fill it."""
    image, tag, far = photo(96, 64), (0x0112, 3, 1, 6 << 16), (0x010F, 2, 1000, 9999)
    whole, counted, pointing = exif_of(tag), exif_of(tag, count=52), exif_of(tag, far)
    png, jpeg = encode(image, "PNG"), encode(image, "JPEG")
    for name, exif, expected in (
        ("PNG whose EXIF says 52 entries and has one", png_chunk(b"eXIf", counted), CORRUPT),
        ("PNG whose EXIF has its text elsewhere", png_chunk(b"eXIf", pointing), CORRUPT),
        ("PNG with EXIF of no known order", png_chunk(b"eXIf", b"XX" + whole[2:]), CORRUPT),
        ("PNG with EXIF twice", png_chunk(b"eXIf", whole) + png_chunk(b"eXIf", exif_of()), CORRUPT),
        ("PNG with the EXIF of a JPEG, which says nothing", png_chunk(b"eXIf", b"Exif\0\0" + whole), OK),
    ):
        yield name, png[:33] + exif + png[33:], {expected}
    for name, exif in (("52 entries and has one", counted), ("its text elsewhere", pointing)):
        segment = b"\xff\xe1" + struct.pack(">H", 8 + len(exif)) + b"Exif\0\0" + exif
        yield f"JPEG whose EXIF says {name}", jpeg[:2] + segment + jpeg[2:], {OK}
    header, pixels, _ = webp_chunks(encode(image, "WEBP", exif=whole))
    yield "WebP whose EXIF says 52 entries", webp_file(header, pixels, (b"EXIF", counted)), {CORRUPT}
    reserved = (header[0], bytes([header[1][0] | 0x80]) + header[1][1:])
    yield "WebP with EXIF and a reserved flag", webp_file(reserved, pixels, (b"EXIF", whole)), {CORRUPT}
    tiff = encode(image, "TIFF", exif=whole)
    twice = tiff.replace(struct.pack("<HHI", 284, 3, 1), struct.pack("<HHI", 274, 3, 1))
    assert twice.count(struct.pack("<HHI", 274, 3, 1)) == 2
    yield "TIFF with two orientations", twice, {CORRUPT}


def exif_of(*entries: tuple[int, int, int, int], count: int | None = None) -> bytes:
    """EXIF of these entries (tag, type, count, the four bytes of the value), that says it has `count` of them."""
    packed = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"MM\0*" + struct.pack(">IH", 8, len(entries) if count is None else count) + packed + bytes(4)


def _shapes() -> _Cases:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        yield f"1x1 {kind}", encode(photo(1, 1), kind), {OK}
        yield f"10000x1 {kind}", encode(photo(10_000, 1), kind), {TOO_LARGE}
        yield f"1x10000 {kind}", encode(photo(1, 10_000), kind), {TOO_LARGE}
        yield f"640x10 {kind}", encode(photo(640, 10), kind), {OK}
