"""What each pixel format means to the serving preprocess, as grey levels: against Pillow, or against the bytes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from slipway.steps import guard
from tests.support.bad_images import Case, corpus
from tests.support.grey_levels import Levels, as_levels, levels
from tests.support.image_files import encode, photo

CORPUS = corpus()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_with_an_exif_orientation_equals_the_turned_image(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned_by_flag, as_stored = encode(photo(96, 64), kind, exif=exif), encode(photo(96, 64), kind)
    with Image.open(io.BytesIO(turned_by_flag)) as image:
        turned = levels(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(levels(turned_by_flag), turned)
    np.testing.assert_array_equal(levels(turned_by_flag, exif_orientation=False), levels(as_stored))
    assert (orientation == 1) == np.array_equal(turned, levels(as_stored))


def test_broken_exif_changes_nothing() -> None:
    image = photo(96, 64)
    broken = encode(image, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    np.testing.assert_array_equal(levels(broken), levels(encode(image, "JPEG")))


def as_rgb(name: str, data: bytes) -> Levels:
    """Pillow's RGB of a file; 16-bit samples are divided by 257 and rounded, which Pillow does not do."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "I;16":
            assert "16-bit grey" in name
            return np.rint(np.asarray(image, np.float64) / 257).astype(np.int64)[..., None].repeat(3, axis=2)
        return as_levels(image)


FORMATS = [
    case
    for case in CORPUS
    if case.expected == {guard.OK}
    and not case.name[0].isdigit()  # images of odd shapes
    # Tests of their own; refused by Pillow, which also gets subsampled TIFF wrong.
    and not any(part in case.name for part in ("EXIF", "BMP of 16 bits", "red first", "bomb", "subsampled"))
]


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_every_pixel_format_means_what_pillow_converts_it_to(case: Case) -> None:
    """Grey is repeated, alpha is dropped (never blended), a palette is looked up, CMYK is `(255 - C)(255 - K) / 255`.

    One exception: a TIFF's palette has 16 bits a colour, where DALI rounds and Pillow cuts off.
    """
    expected = as_rgb(case.name, case.data)
    found = levels(case.data, height=expected.shape[0], width=expected.shape[1])
    assert np.abs(found - expected).max() <= (1 if case.name == "TIFF of mode P" else 0)


def test_the_fields_of_a_bmp_lie_where_it_says_and_lose_nothing_but_their_low_bits() -> None:
    """Five bits are shifted, not stretched: white is 248."""
    cases = [case for case in CORPUS if case.name in {"BMP of 16 bits, 5-6-5", "BMP of 16 bits, 5-5-5"}]
    for case in cases:
        words = np.frombuffer(case.data[-32 * 32 * 2 :], "<u2").reshape(32, 32)[::-1].astype(np.int64)
        green_bits = int(case.name.split("-")[1])
        red, green = words >> (5 + green_bits) & 0x1F, words >> 5 & ((1 << green_bits) - 1)
        expected = np.stack([red << 3, green << 8 - green_bits, (words & 0x1F) << 3], axis=-1)
        np.testing.assert_array_equal(levels(case.data), expected)


def test_a_bmp_whose_fields_have_red_first_is_not_taken_for_blue_first() -> None:
    data = next(case.data for case in CORPUS if case.name == "BMP of 32 bits, red first")
    stored = np.frombuffer(data[-32 * 32 * 4 :], np.uint8).reshape(32, 32, 4)[::-1, :, :3]
    np.testing.assert_array_equal(levels(data), stored)


def test_a_webp_that_dali_refuses_for_the_place_of_its_exif_is_mended_and_turned() -> None:
    turned, unmarked = (
        next(case.data for case in CORPUS if case.name == f"lossless WebP {name}")
        for name in ("of EXIF orientation 6, of odd length", "that says it has EXIF and has none")
    )
    assert guard.for_decoder(turned) != turned
    width, height = Image.open(io.BytesIO(unmarked)).size
    stored = levels(unmarked, height=height, width=width)
    np.testing.assert_array_equal(levels(turned, height=width, width=height), np.rot90(stored, -1))


def test_a_tiff_of_subsampled_chroma_is_converted_as_its_colours_say() -> None:
    """It says that black is 15 and white 235, and that chroma is 16 to 240 around 128."""
    data = next(case.data for case in CORPUS if case.name == "TIFF of subsampled chroma")
    units = np.frombuffer(data[8 : 8 + 96], np.uint8).reshape(4, 4, 6).astype(np.float64)
    luma = (units[..., :4].reshape(4, 4, 2, 2).transpose(0, 2, 1, 3).reshape(8, 8) - 15) * 255 / 220
    blue, red = ((units[..., i].repeat(2, axis=0).repeat(2, axis=1) - 128) * 127 / 112 for i in (4, 5))
    expected = np.stack([luma + 1.402 * red, luma - 0.344 * blue - 0.714 * red, luma + 1.772 * blue], axis=-1)
    assert np.abs(levels(data, height=8, width=8) - expected.clip(0, 255)).max() < 3  # libtiff rounds


def test_16_bit_samples_are_rounded_to_8() -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (32, 32), np.uint16)
    for kind in ("PNG", "TIFF"):
        found = levels(encode(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(found[..., 0], np.rint(grey / 257))


def test_a_transparent_pixel_shows_the_colour_stored_under_it() -> None:
    image = Image.new("RGBA", (32, 32), (200, 100, 50, 0))
    for encoded in (encode(image, "PNG"), encode(image, "WEBP", lossless=True, exact=True), encode(image, "TIFF")):
        assert (levels(encoded) == [200, 100, 50]).all()
