"""PNGs that must not hurt: damaged, larger than they look, of every kind."""

import struct
import zlib

import numpy as np
from PIL import Image

from slipway.steps.guard import CORRUPT, OK, TOO_LARGE
from tests.support.image_files import JUDGED_BY_DECODER, Cases, encode, flipped, photo, png_chunk


def png_damage() -> Cases:
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


def png_bombs() -> Cases:
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


def png_kinds() -> Cases:
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
