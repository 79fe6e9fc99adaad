"""WebPs that must not hurt: damaged, and with parts missing, doubled or of a wrong length."""

import struct

from PIL import Image

from slipway.steps.guard import CORRUPT, OK, TOO_LARGE
from tests.support.image_files import JUDGED_BY_DECODER, Cases, encode, flipped, photo, webp_chunks, webp_file


def webp() -> Cases:
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


def webp_parts() -> Cases:
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
