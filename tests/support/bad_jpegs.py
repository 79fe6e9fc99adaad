"""JPEGs that must not hurt: damaged, with other tables, of every kind."""

import base64
import struct

from PIL import Image

from slipway.steps.guard import CORRUPT, OK, TOO_LARGE, UNSUPPORTED
from tests.support.image_files import (
    DHT,
    DQT,
    JUDGED_BY_DECODER,
    SOF,
    SOS,
    Cases,
    encode,
    flipped,
    jpeg_segment,
    photo,
    without_segments,
)

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


def jpeg_damage() -> Cases:
    jpeg = encode(photo(160, 120), "JPEG")
    quantisation, frame, huffman, scan = (jpeg_segment(jpeg, marker) for marker in (DQT, SOF, DHT, SOS))
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
    yield "JPEG with its scan twice", jpeg[:-2] + jpeg[scan:], {CORRUPT}
    yield "arithmetic JPEG with its scan twice", ARITHMETIC_JPEG[:-2] + _scan(ARITHMETIC_JPEG) + b"\xff\xd9", {CORRUPT}
    yield "progressive JPEG cut between scans", progressive[: -2 - len(last_scan)], {CORRUPT}


def jpeg_tables() -> Cases:
    """What libjpeg-turbo refuses though every segment is whole, and what it takes though something is missing."""
    jpeg, progressive = encode(photo(160, 120), "JPEG"), encode(photo(160, 120), "JPEG", progressive=True)
    frame, scan = jpeg_segment(jpeg, SOF), jpeg_segment(jpeg, SOS)
    # A sequential JPEG without Huffman tables has the standard ones, which are those that Pillow writes.
    yield "JPEG without Huffman tables", without_segments(jpeg, DHT), {OK}
    yield "progressive JPEG without Huffman tables", without_segments(progressive, DHT), {CORRUPT}
    yield "JPEG without quantisation tables", without_segments(jpeg, DQT), {CORRUPT}
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


def _scan(jpeg: bytes) -> bytes:
    """Head and data of the one scan."""
    return jpeg[jpeg_segment(jpeg, SOS) : jpeg.rindex(b"\xff\xd9")]


def jpeg_of_scans(across: int = 1, down: int = 1) -> bytes:
    """A sequential JPEG of 160x120 with a scan for each colour, made of three grey ones, since Pillow writes none.

    Chroma is `across` times narrower and `down` times lower.
    """
    luma, *chroma = photo(160, 120).convert("YCbCr").split()
    greys = [encode(band, "JPEG") for band in (luma, *(band.resize((160 // across, 120 // down)) for band in chroma))]
    frame, huffman = (jpeg_segment(greys[0], marker) for marker in (SOF, DHT))
    start, size = greys[0][:frame], greys[0][frame + 5 : frame + 9]
    components = bytes([1, across << 4 | down, 0, 2, 0x11, 0, 3, 0x11, 0])
    scans = [_scan(grey) for grey in greys]
    numbered = [scan[:5] + bytes([number]) + scan[6:] for number, scan in enumerate(scans, start=1)]
    tables = greys[0][huffman : jpeg_segment(greys[0], SOS)]
    return b"".join([start, b"\xff\xc0\0\x11\x08", size, b"\3", components, tables, *numbered, b"\xff\xd9"])


def jpeg_kinds() -> Cases:
    image = photo(160, 120)
    jpeg, cmyk = encode(image, "JPEG"), encode(image.convert("CMYK"), "JPEG")
    frame, adobe = jpeg_segment(jpeg, SOF), cmyk.index(b"Adobe")
    yield "JPEG", jpeg, {OK}
    yield "progressive JPEG", encode(image, "JPEG", progressive=True), {OK}
    yield "JPEG with restarts", encode(image, "JPEG", restart_marker_blocks=3), {OK}
    yield "JPEG of a scan for each colour", jpeg_of_scans(), {OK}
    for across, down in ((1, 2), (1, 4), (2, 2), (3, 3), (4, 1), (4, 2)):
        yield f"JPEG whose luma is {across} by {down} times its chroma", jpeg_of_scans(across, down), {OK}
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
