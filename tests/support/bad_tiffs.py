"""BMPs, TIFFs and EXIF that must not hurt."""

import base64
import struct
import zlib

import numpy as np
from PIL import Image

from slipway.steps.guard import CORRUPT, OK, TOO_LARGE, UNSUPPORTED
from tests.support.image_files import Cases, encode, exif_of, photo, png_chunk, webp_chunks, webp_file

# 8x8 pixels, chroma of 4x4, not compressed: from ffmpeg.
SUBSAMPLED_TIFF = base64.b64decode(
    "SUkqALwAAAAhRD9nbJl3pZWWZKCfeq+dY6CDmnyTYaNqX3lZYayIeGynYKaLl6BlYqV+lXiCYKaFXoBOY6hARDUjb6FLT0tQa6Noa11oYqiUT618"
    "aJs0Gyg0dJo3SDgyb59YaGhsYqUIAAgACABIAAAAAQAAAEgAAAABAAAATGF2YzYyLjI4LjEwMgAPAAAAAQAAAOsAAAABAAAAgAAAAAEAAADwAAAA"
    "AQAAAIAAAAABAAAA8AAAAAEAAAAQAP4ABAABAAAAAAAAAAABBAABAAAACAAAAAEBBAABAAAACAAAAAIBAwADAAAAaAAAAAMBAwABAAAAAQAAAAYB"
    "AwABAAAABgAAABEBBAABAAAACAAAABUBAwABAAAAAwAAABYBBAABAAAAdgIAABcBBAABAAAAYAAAABoBBQABAAAAbgAAABsBBQABAAAAdgAAACgB"
    "AwABAAAAAgAAADEBAgAOAAAAfgAAABICAwACAAAAAgACABQCBQAGAAAAjAAAAAAAAAA="
)


def bmp() -> Cases:
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


def tiff() -> Cases:
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


def exif() -> Cases:
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
