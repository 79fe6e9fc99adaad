"""Images that must not hurt: every kind of single-image request body that `inspect` and the decoder have to survive.

Each case names the statuses that are right for it at the end of the whole preprocessing step. `{OK, CORRUPT}` stands
for damage inside compressed data, which the guard cannot see: there the decoder is the judge.
"""

import base64
import json
from dataclasses import dataclass
from functools import cache
from itertools import chain

from slipway.steps.guard import EMPTY, OK, TOO_LARGE, UNSUPPORTED
from tests.support import bad_jpegs, bad_pngs, bad_tiffs, bad_webps
from tests.support.image_files import Cases, encode, photo


@dataclass(frozen=True)
class Case:
    """One request body."""

    name: str
    data: bytes
    expected: frozenset[int]
    """The statuses that are acceptable end to end."""


@cache
def corpus() -> tuple[Case, ...]:
    """Every case; made once in a process."""
    groups = (
        *(_not_images, bad_jpegs.jpeg_damage, bad_jpegs.jpeg_tables, bad_jpegs.jpeg_kinds),
        *(bad_pngs.png_damage, bad_pngs.png_bombs, bad_pngs.png_kinds, bad_webps.webp, bad_webps.webp_parts),
        *(bad_tiffs.bmp, bad_tiffs.tiff, bad_tiffs.exif, _shapes),
    )
    found = chain(*(group() for group in groups))
    cases = tuple(Case(name, data, frozenset(expected)) for name, data, expected in found)
    assert len({case.name for case in cases}) == len(cases)
    return cases


def _not_images() -> Cases:
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


def _shapes() -> Cases:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        yield f"1x1 {kind}", encode(photo(1, 1), kind), {OK}
        yield f"10000x1 {kind}", encode(photo(10_000, 1), kind), {TOO_LARGE}
        yield f"1x10000 {kind}", encode(photo(1, 10_000), kind), {TOO_LARGE}
        yield f"640x10 {kind}", encode(photo(640, 10), kind), {OK}
