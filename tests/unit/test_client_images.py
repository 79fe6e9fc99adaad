"""Every kind of source becomes the bytes that mean it, or an error that says what to give instead."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from slipway.client import ImageError, find_images
from slipway.client.images import batches, each, encode, load, parts, png
from slipway.steps.guard import OK, inspect

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])
)


@given(arrays.arrays(np.uint8, SHAPES))
def test_pixels_come_back_from_their_png_as_they_were(pixels: np.ndarray) -> None:
    encoded = png(pixels)
    assert inspect(encoded) == OK
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(decoded, pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def test_pixels_that_are_not_contiguous_are_encoded_as_they_are_seen() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[::-1, ::2, ::-1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_an_array_that_is_no_image_is_refused_with_what_is_one(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"give uint8 \[H, W, 3\] in RGB order"):
        encode(pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pil_image_loses_nothing(mode: str) -> None:
    image = Image.new(mode, (5, 3), 1)
    decoded = Image.open(io.BytesIO(encode(image)))
    assert (decoded.mode, decoded.size, decoded.tobytes()) == (mode, (5, 3), image.tobytes())


@pytest.mark.parametrize("mode", ["CMYK", "F", "YCbCr"])
def test_a_pil_image_that_no_png_holds_is_not_changed_behind_the_callers_back(mode: str) -> None:
    with pytest.raises(ImageError, match=r'mode .*\.convert\("RGB"\)'):
        encode(Image.new(mode, (5, 3)))


def test_a_pil_image_keeps_the_orientation_of_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    Image.new("RGB", (5, 3)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as opened:
        sent = Image.open(io.BytesIO(encode(opened)))
    assert dict(sent.getexif()) == {0x0112: 6}
    assert sent.size == (5, 3)


def test_a_pil_image_whose_file_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as cut, pytest.raises(ImageError, match="a PIL image that cannot be read"):
        encode(cut)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_encoded_bytes_are_sent_as_they_are(kind: Any) -> None:
    assert encode(kind(b"whatever\0")) == b"whatever\0"


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], object()])
def test_what_is_no_image_is_refused_with_what_is_one(source: Any) -> None:
    with pytest.raises(ImageError, match="give a path, encoded bytes, uint8 pixels"):
        encode(source)


def test_a_file_that_cannot_be_sent_is_an_error_in_its_place(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(b"good")
    os.mkfifo(tmp_path / "pipe.jpg")
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(128 * 2**20 + 1)
    first, *refused, last = load(
        [good, tmp_path / "gone.jpg", tmp_path / "pipe.jpg", large, tmp_path, "a\0b", str(good)]
    )
    assert first == last == b"good"
    reasons = ["No such file", "not a regular file", "not a regular file", "ask classify_many", "null"]
    assert all(reason in str(error) for reason, error in zip(reasons, refused, strict=True))


def test_a_folder_is_the_images_below_it_in_the_same_order_every_time(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/1.png", "a/c/3.webp", "0.jpeg", "notes.txt", "a/noimage"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["0.jpeg", "a/c/3.webp", "b/1.png", "b/2.JPG"]
    mixed = list(each([str(tmp_path / "b"), b"bytes", tmp_path / "notes.txt"]))
    assert mixed == [tmp_path / "b/1.png", tmp_path / "b/2.JPG", b"bytes", tmp_path / "notes.txt"]


def test_a_folder_without_an_image_is_reported_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (source,) = each(tmp_path)
    assert source == tmp_path
    with pytest.raises(ImageError, match="a folder without an image in it"):
        encode(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads folders whatever their permissions")
def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_found(tmp_path: Path) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").touch()
    (tmp_path / "closed").chmod(0)
    try:
        first, second = each(tmp_path)
        assert (first, second) == (tmp_path / "open/image.png", tmp_path / "closed")
        with pytest.raises(ImageError, match="Permission denied"):
            encode(second)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_one_image_stands_for_itself_and_a_stack_for_its_images() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    for alone in ("name.jpg", Path("name.jpg"), b"bytes", pixels, Image.new("L", (2, 2))):
        (one,) = each(alone)
        assert one is alone
    assert [image.shape for image in each(np.zeros((7, 4, 5, 3), np.uint8))] == [(4, 5, 3)] * 7


@given(count=st.integers(0, 50), size=st.integers(1, 9))
def test_batches_hold_every_image_once_in_order_and_none_is_too_large(count: int, size: int) -> None:
    images = [bytes([index]) for index in range(count)]
    made = list(batches(images, size=size))
    assert [image for batch in made for image in batch] == images
    assert all(len(batch) == size for batch in made[:-1])
    assert all(1 <= len(batch) <= size for batch in made[-1:])


def test_batches_take_from_the_source_no_more_than_they_need() -> None:
    taken = []
    batch = next(batches((taken.append(index) or bytes([index]) for index in range(1000)), size=8))
    assert (len(batch), len(taken)) == (8, 8)


@given(st.lists(st.binary(max_size=12), max_size=30))
def test_parts_are_within_the_limit_unless_one_image_alone_is_over_it(images: list[bytes]) -> None:
    made = list(parts(images, limit_bytes=20))
    assert [image for part in made for image in part] == images
    assert all(part and (len(part) == 1 or sum(map(len, part)) <= 20) for part in made)
