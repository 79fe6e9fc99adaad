"""The guard against thousands of damaged files of every encoding: a known status for each, and soon."""

import struct
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.steps.guard import CORRUPT, DEFAULT_LIMITS, OK, TOO_LARGE, UNSUPPORTED, for_decoder, inspect, measure
from tests.support.image_files import encode, exif_of, photo, png_chunk, webp_chunks, webp_file
from tests.support.mutations import EDITS, ENCODINGS, FORMATS, KINDS, GoodFile, damaged, good_files, segments

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
PICTURES = [*(photo(400, 300, seed=number) for number in range(3)), NOISE]
ANSWERS = {OK, UNSUPPORTED, CORRUPT, TOO_LARGE}
JPEG, PNG, WEBP = encode(PICTURES[0], "JPEG"), encode(PICTURES[0], "PNG"), encode(PICTURES[0], "WEBP")


@cache
def files() -> tuple[GoodFile, ...]:
    """Four good files of every encoding; made once in a process."""
    return tuple(good_files(PICTURES, 4 * len(ENCODINGS), seed=0, sides=(8, 420)))


@pytest.mark.parametrize("count", [500, pytest.param(2000, marks=pytest.mark.nightly)])
def test_every_encoding_of_every_size_is_let_through(count: int) -> None:
    assert {file.encoding for file in files() if inspect(file.data) == OK} == set(ENCODINGS)
    assert all(inspect(file.data) == OK for file in good_files(PICTURES, count, seed=1, sides=(1, 64)))


def test_the_segments_of_a_good_file_are_all_of_it() -> None:
    for file in files():
        parts = segments(file.data)
        assert len(parts) >= 2, file.encoding
        assert b"".join(file.data[start:end] for start, end in parts) == file.data, file.encoding


def test_damage_is_the_same_in_every_run_and_changes_nearly_every_file() -> None:
    once, again = (list(damaged(files(), 5 * len(KINDS), seed=3)) for _ in range(2))
    assert once == again
    changed = {kind: sum(file.data != data for file, k, data in once if k == kind) for kind in KINDS}
    assert all(count >= 3 for kind, count in changed.items() if kind != "line ends changed"), changed
    assert set(KINDS) > EDITS


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_get_a_status_and_what_passes_fits_the_limits(kind: str) -> None:
    statuses = set()
    for index in range(10 * len(FORMATS) * len(FORMATS)):
        file = files()[index % len(files())]
        data = KINDS[kind](file.data, np.random.default_rng(index))
        status, pixels = measure(data)
        statuses.add(status)
        assert status in ANSWERS
        assert (status == OK) == (0 < pixels <= DEFAULT_LIMITS.max_pixels)
        if status == OK:
            assert inspect(for_decoder(data)) == OK
    assert len(statuses) > 1 or kind == "junk appended", "some of it is seen, and some is not"


@given(st.deferred(lambda: st.sampled_from(files())), st.data())
def test_any_change_to_any_part_gets_a_status(file: GoodFile, data: st.DataObject) -> None:
    image = file.data
    parts = [image[start:end] for start, end in segments(image)]
    index = data.draw(st.integers(0, len(parts) - 1), label="part")
    where = data.draw(st.integers(0, min(64, len(parts[index]))), label="where")
    inserted = data.draw(st.binary(max_size=24), label="inserted")
    removed = data.draw(st.integers(0, 24), label="removed")
    parts[index] = parts[index][:where] + inserted + parts[index][where + removed :]
    order = data.draw(st.permutations(range(len(parts))) if data.draw(st.booleans()) else st.just(range(len(parts))))
    changed = b"".join(parts[part] for part in order)
    assert inspect(changed) in {*ANSWERS, 1}
    if changed.startswith(b"\x89PNG"):  # and with checksums that are right again
        assert inspect(KINDS["header changed"](image, np.random.default_rng(len(changed)))) in ANSWERS


def cpu_ms(work: Callable[[], object]) -> float:
    """The least that it takes of this thread's own time: what others do on the machine does not count."""
    took = []
    for _ in range(5):
        started = time.thread_time_ns()
        work()
        took.append((time.thread_time_ns() - started) / 1e6)
        if took[-1] < 1:
            break
    return min(took)


def test_a_damaged_file_of_100_kb_takes_less_than_two_milliseconds() -> None:
    large = [file for file in files() if len(file.data) > 50_000]
    assert {file.format for file in large} == set(FORMATS)
    for file, kind, data in damaged(large, 1500, seed=7):
        took_ms = cpu_ms(lambda data=data: inspect(data))
        assert took_ms < 2 * max(1, len(data) / 100_000), f"{file.encoding}, {kind}, {len(data)} bytes: {took_ms} ms"


def _tiff_of_pages() -> bytes:
    """Pages of no tags, each of which names the next."""
    good = encode(photo(8, 8), "TIFF")
    (first,) = struct.unpack_from("<I", good, 4)
    (entries,) = struct.unpack_from("<H", good, first)
    end, start = first + 2 + 12 * entries, len(good)
    pages = b"".join(struct.pack("<HI", 0, start + 6 * (page + 1)) for page in range(16_000))
    return good[:end] + struct.pack("<I", start) + good[end + 4 :] + pages + struct.pack("<HI", 0, 0)


def _webp_of_frames() -> bytes:
    canvas, animation, frame, _ = webp_chunks(
        encode(photo(1, 1), "WEBP", save_all=True, append_images=[photo(1, 1, seed=1)], lossless=True)
    )
    return webp_file(canvas, animation, *[frame] * (100_000 // (8 + len(frame[1]))))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "JPEG of comments": lambda: JPEG[:2] + b"\xff\xfe\0\2" * 16_000 + JPEG[2:],
    "JPEG of codes": lambda: JPEG[:2] + (b"\xff\xc4\xc0\x96" + bytes(17 * 2900)) * 2 + JPEG[2:],
    "JPEG of fill bytes": lambda: JPEG[:2] + b"\xff" * 100_000 + JPEG[3:],
    "JPEG of fill bytes in its scan": lambda: JPEG[:-2] + b"\xff" * 100_000 + JPEG[-1:],
    "PNG of chunks": lambda: PNG[:33] + png_chunk(b"teSt", b"") * 8000 + PNG[33:],
    "PNG of EXIF": lambda: PNG[:33] + png_chunk(b"eXIf", exif_of(*[(1, 3, 1, 0)] * 1000)) + PNG[33:],
    "WebP of chunks": lambda: webp_file(*webp_chunks(WEBP), *[(b"teSt", b"")] * 12_000),
    "WebP of frames": _webp_of_frames,
    "TIFF of pages": _tiff_of_pages,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_as_many_parts_as_fit_in_100_kb_is_looked_at_within_a_moment(name: str) -> None:
    data = HOSTILE[name]()
    assert inspect(data) == OK, "it is whole, so all of it was looked at"
    assert cpu_ms(lambda: inspect(data)) < 60


def test_a_png_of_more_than_4_mib_may_not_inflate_to_more_than_it_declares() -> None:
    """The decoder inflates all of it: 31 MiB can take it 46 seconds."""
    good = encode(NOISE, "PNG", compress_level=1)
    assert len(good) > 4 * 2**20, "a smaller one is not looked into"
    assert inspect(good) == OK
    start = good.index(b"IDAT") - 4
    declared = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1500, 50, 8, 2, 0, 0, 0))
    assert inspect(good[:8] + declared + good[start:]) == TOO_LARGE
    end = start + 12 + int.from_bytes(good[start : start + 4], "big")
    broken = png_chunk(b"IDAT", bytes(64) + good[start + 72 : end - 4])
    assert inspect(good[:start] + broken + good[end:]) == CORRUPT
