"""The serving preprocess: one bad image harms no other, and geometry and normalisation on synthetic images."""

import copy
import subprocess
import sys
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image

from slipway.contract import Preprocess
from slipway.steps import batch_limits, dali_resize, guard
from slipway.steps.dali_resize import DeviceBatch
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_images import Case, corpus
from tests.support.grey_levels import MAX_BATCH, as_levels, levels, preprocessor
from tests.support.image_files import JUDGED_BY_DECODER, encode, good_images, photo

Pixels = npt.NDArray[np.uint8]
Triple = tuple[float, float, float]

CORPUS = corpus()
GOOD = good_images(MAX_BATCH, seed=3)
REFUSED_BY_GUARD = GOOD[0][: len(GOOD[0]) // 2]
REFUSED_BY_DECODER = next(case.data for case in CORPUS if case.name == "PNG with half of its data")
EMPTY = b""
BAD = {REFUSED_BY_GUARD: guard.CORRUPT, REFUSED_BY_DECODER: guard.CORRUPT, EMPTY: guard.EMPTY}


@cache
def alone(image: bytes) -> Pixels:
    """What this image gives when no other is near it."""
    return preprocessor(max_batch=1).run([image])[0][0]


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


def noise(width: int, height: int) -> Image.Image:
    """Every pixel of its own colour: nothing hides a wrong position or filter."""
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


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


class OnGpu:
    """Pixels of the CPU, handed out as those of a GPU are."""

    def __init__(self, pixels_nhwc_u8: Pixels) -> None:
        self._pixels_nhwc_u8 = pixels_nhwc_u8

    def as_cpu(self) -> SimpleNamespace:
        return SimpleNamespace(as_array=lambda: self._pixels_nhwc_u8)

    def as_tensor(self) -> SimpleNamespace:
        interface = self._pixels_nhwc_u8.__array_interface__
        return SimpleNamespace(__cuda_array_interface__=interface, array=self._pixels_nhwc_u8)


@pytest.fixture
def played_gpu(monkeypatch: pytest.MonkeyPatch) -> Preprocessor:
    """A `Preprocessor` on GPU 0, whose decoder, resize and tensors are those of the CPU."""

    def tensor(rows: Any, *, device_id: int) -> npt.NDArray[Any]:
        assert device_id == 0
        return np.asarray(SimpleNamespace(__array_interface__=rows.__cuda_array_interface__)).copy()

    monkeypatch.setattr(dali_resize, "TensorGPU", tensor)
    cpu = preprocessor()
    gpu = copy.copy(cpu)
    own = {"_decode": cpu._decode, "_resize": lambda *given: OnGpu(cpu._resize(*given))}
    vars(gpu).update(own, _device_id=0)
    return gpu


def test_a_batch_of_the_gpu_has_the_rows_of_run_and_a_bad_image_its_status(played_gpu: Preprocessor) -> None:
    images = [GOOD[0], REFUSED_BY_DECODER, GOOD[1], EMPTY]
    expected, expected_n = preprocessor().run(images)
    batch, status_n = played_gpu.run_on_gpu(images)
    assert isinstance(batch, DeviceBatch)
    assert status_n.tolist() == expected_n.tolist() == [guard.OK, guard.CORRUPT, guard.OK, guard.EMPTY]
    for rows in (slice(0, 4), slice(0, 1), slice(1, 3), slice(3, 4)):
        np.testing.assert_array_equal(batch[rows], expected[rows])


def test_a_batch_that_the_gpu_decodes_in_pieces_is_put_together_on_the_cpu(
    played_gpu: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [*GOOD[:3], REFUSED_BY_DECODER, GOOD[3]]
    expected, expected_n = preprocessor().run(images)
    monkeypatch.setattr(batch_limits, "MAX_BATCH_PIXELS", sum(guard.measure(image)[1] for image in images[:2]))
    pixels_nhwc_u8, status_n = played_gpu.run_on_gpu(images)
    assert isinstance(pixels_nhwc_u8, np.ndarray)
    np.testing.assert_array_equal(pixels_nhwc_u8, expected)
    assert status_n.tolist() == expected_n.tolist() == [guard.OK] * 3 + [guard.CORRUPT, guard.OK]


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


@pytest.mark.parametrize(
    ("side", "crop_fraction", "width", "height"),
    [
        *((224, 1.0, 189, 163), (224, 1.0, 45, 32), (224, 0.875, 382, 219), (224, 0.875, 206, 118)),
        *((224, 0.875, 245, 242), (224, 0.875, 207, 159), (224, 0.9, 125, 83), (288, 0.95, 205, 168)),
    ],
)
def test_where_a_cubic_cut_begins_at_the_centre_of_a_pixel_it_is_that_of_the_whole_image(
    side: int, crop_fraction: float, width: int, height: int
) -> None:
    """With the box of fast_image_resize 6.1 these sizes ended the process, or had other pixels at the edge."""
    image = photo(width, height, seed=width)
    new_hw = Preprocessor((config := preprocess_config(side, crop_fraction)), max_batch_size=1, threads=1)._geometry(
        [(height, width)]
    )[0][:, 0]
    found = Preprocessor(config, max_batch_size=1, threads=1).run([encode(image, "PNG")])[0][0].astype(int)
    resized = image.resize((int(new_hw[1]), int(new_hw[0])), Image.Resampling.BICUBIC)
    top, left = (round((int(new) - side) / 2) for new in new_hw)
    expected = as_levels(resized.crop((left, top, left + side, top + side)))
    assert np.abs(found - expected).max() <= 6


def preprocess_config(side: int, crop_fraction: float) -> dict[str, Any]:
    given = {"input_height": side, "input_width": side, "crop_fraction": crop_fraction, "interpolation": "cubic"}
    return Preprocess.parse(given, source="test").model_dump()


def test_a_cpu_does_without_dali() -> None:
    """Which takes 90 MiB of each process."""
    config = {"input_height": 24, "input_width": 24}
    code = (
        "import sys; from slipway.contract import Preprocess; from slipway.steps.preprocess import Preprocessor; "
        f"config = Preprocess(**{config}).model_dump(); "
        "pixels, status = Preprocessor(config, max_batch_size=1, threads=1).run([b'']); "
        "sys.exit('nvidia.dali' in sys.modules or pixels.shape != (1, 24, 24, 3))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
