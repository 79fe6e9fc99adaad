"""The serving preprocess: one bad image harms no other, geometry on synthetic images, and what each pixel format means.

Mean 0 and deviation 1 are used throughout, so that pixels times 255 are grey levels.
"""

import io
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image, ImageOps

from slipway.contract import Preprocess
from slipway.steps import guard
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_images import Case, corpus
from tests.support.image_files import JUDGED_BY_DECODER, encode, good_images, photo

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int64]
Triple = tuple[float, float, float]

MAX_BATCH = 8
CORPUS = corpus()
GOOD = good_images(MAX_BATCH, seed=3)
REFUSED_BY_GUARD = GOOD[0][: len(GOOD[0]) // 2]
REFUSED_BY_DECODER = next(case.data for case in CORPUS if case.name == "PNG with half of its data")
EMPTY = b""
BAD = {REFUSED_BY_GUARD: guard.CORRUPT, REFUSED_BY_DECODER: guard.CORRUPT, EMPTY: guard.EMPTY}


@cache
def preprocessor(
    *, height: int = 32, width: int = 32, max_batch: int = MAX_BATCH, threads: int = 1, **options: Any
) -> Preprocessor:
    config = {"input_height": height, "input_width": width, **options}
    return Preprocessor(Preprocess.parse(config, source="test").model_dump(), max_batch_size=max_batch, threads=threads)


@cache
def alone(image: bytes) -> Pixels:
    """What this image gives when no other is near it."""
    return preprocessor(max_batch=1).run([image])[0][0]


def levels(image: Image.Image | bytes, **options: Any) -> Levels:
    """Grey levels `[H, W, 3]` of one image that has to be good."""
    encoded = image if isinstance(image, bytes) else encode(image, "PNG")
    pixels_nhwc_u8, status_n = preprocessor(**options).run([encoded])
    assert status_n.tolist() == [guard.OK]
    return pixels_nhwc_u8[0].astype(np.int64)


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Pillow's bilinear resize, with the borders repeated outwards as DALI does; Pillow would leave them out."""
    array = np.asarray(image)
    down, across = (2 + 2 * -(-old // new) for old, new in zip(array.shape, (height, width), strict=False))
    padded = Image.fromarray(np.pad(array, ((down, down), (across, across), (0, 0)), mode="edge"))
    box = (across, down, across + image.width, down + image.height)
    return padded.resize((width, height), Image.Resampling.BILINEAR, box=box)


def noise(width: int, height: int) -> Image.Image:
    """Every pixel of its own colour: nothing hides a wrong position or filter."""
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def as_levels(image: Image.Image) -> Levels:
    return np.asarray(image.convert("RGB"), np.int64)


@given(st.lists(st.sampled_from([*GOOD, *BAD]), max_size=MAX_BATCH))
@settings(deadline=None)
def test_every_image_of_a_batch_gives_what_it_gives_alone_bit_for_bit(images: list[bytes]) -> None:
    pixels_nhwc_u8, status_n = preprocessor().run(images)
    assert status_n.tolist() == [BAD.get(image, guard.OK) for image in images]
    assert (pixels_nhwc_u8.dtype, pixels_nhwc_u8.shape) == (np.uint8, (len(images), 32, 32, 3))
    assert status_n.dtype == np.int32
    for image, pixels in zip(images, pixels_nhwc_u8, strict=True):
        np.testing.assert_array_equal(pixels, alone(guard.PLACEHOLDER if image in BAD else image))


@pytest.mark.parametrize("bad", BAD, ids=["refused by the guard", "refused by the decoder", "empty"])
@pytest.mark.parametrize("position", range(MAX_BATCH))
def test_one_bad_image_at_any_position_of_a_full_batch_leaves_the_others_as_they_are(bad: bytes, position: int) -> None:
    others = GOOD[:position] + GOOD[position + 1 :]
    expected, _ = preprocessor().run(others)
    pixels_nhwc_u8, status_n = preprocessor().run([*GOOD[:position], bad, *GOOD[position + 1 :]])
    assert np.flatnonzero(status_n).tolist() == [position]
    np.testing.assert_array_equal(np.delete(pixels_nhwc_u8, position, axis=0), expected)


@pytest.mark.parametrize("bad", BAD, ids=["refused by the guard", "refused by the decoder", "empty"])
def test_after_a_full_batch_of_bad_images_the_next_is_answered(bad: bytes) -> None:
    assert preprocessor().run([bad] * MAX_BATCH)[1].tolist() == [BAD[bad]] * MAX_BATCH
    pixels_nhwc_u8, status_n = preprocessor().run(GOOD)
    assert not status_n.any()
    np.testing.assert_array_equal(pixels_nhwc_u8, np.stack([alone(image) for image in GOOD]))


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_every_image_of_the_corpus_gets_its_status_and_harms_no_neighbour(case: Case) -> None:
    pixels_nhwc_u8, status_n = preprocessor().run([GOOD[0], case.data, GOOD[1]])
    assert status_n[[0, 2]].tolist() == [guard.OK, guard.OK]
    assert status_n[1] in case.expected
    np.testing.assert_array_equal(pixels_nhwc_u8[[0, 2]], np.stack([alone(GOOD[0]), alone(GOOD[1])]))
    if status_n[1] != guard.OK:
        np.testing.assert_array_equal(pixels_nhwc_u8[1], alone(guard.PLACEHOLDER))


def test_the_decoder_refuses_some_of_what_the_guard_passes() -> None:
    judged = [
        case.data for case in CORPUS if case.expected == JUDGED_BY_DECODER and guard.inspect(case.data) == guard.OK
    ]
    statuses = {int(preprocessor().run([data])[1][0]) for data in judged}
    assert statuses == {guard.OK, guard.CORRUPT}


def test_threads_and_the_largest_batch_do_not_change_pixels() -> None:
    pixels_nhwc_u8, _ = preprocessor().run(GOOD)
    for options in ({"threads": 2}, {"max_batch": 32}, {"max_batch": 16, "threads": 3}):
        np.testing.assert_array_equal(preprocessor(**options).run(GOOD)[0], pixels_nhwc_u8)


def test_an_earlier_result_stays_as_it_was_when_the_next_batch_is_run() -> None:
    first, _ = preprocessor().run([GOOD[0]])
    copy = first.copy()
    preprocessor().run([GOOD[1]])
    np.testing.assert_array_equal(first, copy)


@given(st.integers(24, 90), st.integers(24, 90), st.sampled_from([(24, 24), (24, 40), (33, 24)]))
@settings(deadline=None, max_examples=60)
def test_crop_cuts_the_centre_where_nothing_has_to_be_resized(width: int, height: int, inputs: tuple[int, int]) -> None:
    """The image is made to fit the input on one side; offsets are `round(surplus / 2)`, as torchvision's."""
    input_height, input_width = inputs
    width, height = (max(width, input_width), input_height) if width % 2 else (input_width, max(height, input_height))
    image = photo(width, height, seed=width)
    top, left = round((height - input_height) / 2), round((width - input_width) / 2)
    expected = as_levels(image)[top : top + input_height, left : left + input_width]
    np.testing.assert_array_equal(levels(image, height=input_height, width=input_width), expected)


@given(st.integers(1, 120), st.integers(1, 120), st.sampled_from([(24, 24), (24, 40), (33, 24)]))
@settings(deadline=None, max_examples=60)
def test_crop_covers_the_input_and_cuts_the_centre(width: int, height: int, inputs: tuple[int, int]) -> None:
    """Against Pillow, on images of any shape that the guard passes: at most one grey level."""
    input_height, input_width = inputs
    width, height = min(width, 64 * height), min(height, 64 * width)
    new_height, new_width = (
        max(input_width * height // width, input_height),
        max(input_height * width // height, input_width),
    )
    top, left = round((new_height - input_height) / 2), round((new_width - input_width) / 2)
    image = noise(width, height)
    resized = resize(image, new_width, new_height)
    expected = as_levels(resized.crop((left, top, left + input_width, top + input_height)))
    assert np.abs(levels(image, height=input_height, width=input_width) - expected).max() <= 1


def test_crop_fraction_keeps_that_share_of_the_shorter_side() -> None:
    image = photo(100, 64)
    expected = as_levels(image.crop((34, 16, 66, 48)))
    np.testing.assert_array_equal(levels(image, crop_fraction=0.5), expected)


@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.sampled_from([(24, 24), (24, 40), (33, 24)]),
    st.sampled_from([0, 114, 255]),
)
@settings(deadline=None, max_examples=60)
def test_pad_shows_the_whole_image_centred_on_the_pad_value(
    width: int, height: int, inputs: tuple[int, int], value: int
) -> None:
    """An odd surplus puts its extra row or column before the image. Content: at most one grey level from Pillow."""
    input_height, input_width = inputs
    width, height = min(width, 64 * height), min(height, 64 * width)
    new_height = max(min(input_width * height // width, input_height), 1)
    new_width = max(min(input_height * width // height, input_width), 1)
    top, left = (input_height - new_height + 1) // 2, (input_width - new_width + 1) // 2
    image = noise(width, height)
    resized = as_levels(resize(image, new_width, new_height))
    found = levels(image, height=input_height, width=input_width, resize="pad", pad_value=value)
    content = found[top : top + new_height, left : left + new_width].copy()
    assert np.abs(content - resized).max() <= 1
    found[top : top + new_height, left : left + new_width] = value
    assert (found == value).all()


def test_pixels_are_scaled_then_normalised_by_mean_and_deviation_of_each_channel() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    encoded = encode(Image.new("RGB", (40, 20), (255, 51, 0)), "PNG")
    pixels_nhwc_u8, _ = preprocessor(resize="pad", pad_value=102).run([encoded])
    pixels_nchw = normalize(pixels_nhwc_u8, {"mean": mean, "std": std})
    assert (pixels_nchw.dtype, pixels_nchw.flags.c_contiguous) == (np.float32, True)
    inside, outside = np.array([1.0, 0.2, 0.0]), np.array([0.4, 0.4, 0.4])
    np.testing.assert_allclose(pixels_nchw[0, :, 16, 16], (inside - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pixels_nchw[0, :, 0, 0], (outside - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mean", [(0.485, 0.456, 0.406), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("std", [(0.229, 0.224, 0.225), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)])
def test_every_level_is_normalised_as_dali_normalises_it_bit_for_bit(mean: Triple, std: Triple) -> None:
    every = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (1, 16, 16, 3))

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)  # type: ignore[untyped-decorator, unused-ignore]
    def by_dali() -> Any:
        return fn.crop_mirror_normalize(
            fn.external_source(name="levels", batch=True, layout="HWC"),
            mean=[255 * channel for channel in mean],
            std=[255 * channel for channel in std],
        )

    pipeline = by_dali()
    pipeline.build()
    pipeline.feed_input("levels", list(every.copy()))
    (expected,) = pipeline.run()
    np.testing.assert_array_equal(normalize(every, {"mean": mean, "std": std}), expected.as_array())


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


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1), (2, 128), (128, 2), (3000, 47)])
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_the_smallest_and_the_longest_images_are_answered(size: tuple[int, int], resize: str) -> None:
    image = Image.new("RGB", size, (10, 20, 30))
    found = levels(image, resize=resize, pad_value=255)
    assert (found[16, 16] == [10, 20, 30]).all()
    if resize == "crop":
        assert (found == [10, 20, 30]).all()


@pytest.mark.parametrize("size", [(65, 1), (1, 65), (10_000, 156)])
def test_an_image_just_over_the_aspect_limit_is_too_large(size: tuple[int, int]) -> None:
    _, status_n = preprocessor().run([encode(Image.new("RGB", size), "PNG")])
    assert status_n.tolist() == [guard.TOO_LARGE]


def test_a_ramp_stays_a_ramp_whatever_the_scale() -> None:
    """No shift by a fraction of a pixel: the centre of a ramp is its middle, and its ends are symmetric."""
    for side in (17, 32, 33, 100, 257):
        ramp = np.linspace(0, 255, side).round().astype(np.uint8)
        found = levels(Image.fromarray(np.repeat(ramp[None], side, axis=0)))[16, :, 0]
        assert all(a <= b for a, b in pairwise(found))
        assert np.abs(found + found[::-1] - 255).max() <= 2


LARGE = """
import io, resource, sys
from PIL import Image
from slipway.steps.preprocess import Preprocessor
config = dict(decoder="cpu", exif_orientation=True, input_height=64, input_width=64, crop_fraction=1.0, resize="crop",
              interpolation="linear", antialias=True, mean=[0.5] * 3, std=[0.5] * 3, pad_value=0, jpeg_scaling=False)
encoded = io.BytesIO()
Image.new("L", (7000, 7000), 128).save(encoded, "JPEG")
preprocessor = Preprocessor(config, max_batch_size=8, threads=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_, status_n = preprocessor.run([encoded.getvalue()] * 6)
assert not status_n.any()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_batch_of_large_images_takes_the_memory_of_one() -> None:
    """Six times 49 million pixels: seen were 955 MiB when decoded at once, and 259 MiB one after the other."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 500, "MiB above what the process had before"
