"""Large JPEGs are decoded at a fraction of their size: what the network sees, and what is said of damaged ones."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from slipway.contract import Preprocess
from slipway.steps import guard, scaled_jpeg
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_jpegs import jpeg_of_scans
from tests.support.image_files import encode, photo

ORIENTATION = 0x112
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@cache
def preprocessor(**options: Any) -> Preprocessor:
    config = {"input_height": 64, "input_width": 48, "crop_fraction": 0.875, **options}
    return Preprocessor(Preprocess.parse(config, source="test").model_dump(), max_batch_size=4, threads=1)


@cache
def photograph(name: str, width: int, height: int, mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(getattr(data, name)())
    return image.convert(mode).resize((width, height), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, *, orientation: int | None = None, **options: Any) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return encode(image, "JPEG", **{"quality": 90, "exif": exif, **options})


def apart(image: bytes, **options: Any) -> tuple[float, int]:
    """The mean and the largest difference in grey levels between both ways to decode; both take it."""
    scaled, full = (preprocessor(jpeg_scaling=scaling, **options).run([image]) for scaling in (True, False))
    assert scaled[1].tolist() == full[1].tolist() == [guard.OK]
    difference = np.abs(scaled[0].astype(int) - full[0].astype(int))
    return float(difference.mean()), int(difference.max())


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales at which images were decoded."""
    seen: list[int] = []
    decode = scaled_jpeg.decode

    def noted(encoded: bytes, scale: int, image: scaled_jpeg.Seen) -> scaled_jpeg.Decoded | None:
        seen.append(scale)
        return decode(encoded, scale, image)

    monkeypatch.setattr(scaled_jpeg, "decode", noted)
    return seen


@pytest.mark.parametrize("resize", ["crop", "pad"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize(("size", "scale"), [((307, 299), 2), ((640, 613), 4), ((1501, 1203), 8)])
def test_the_network_sees_nearly_the_same(
    scales: list[int], name: str, size: tuple[int, int], scale: int, resize: str
) -> None:
    options = {"resize": resize} if resize == "crop" else {"resize": resize, "crop_fraction": 1.0}
    mean, largest = apart(jpeg(photograph(name, *size)), **options)
    assert scales == [scale]
    assert mean < 1
    assert largest <= 12


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("by_exif", [True, False])
def test_it_is_turned_as_the_decoder_turns_it(scales: list[int], orientation: int | None, by_exif: bool) -> None:
    mean, _ = apart(jpeg(photograph("astronaut", 800, 602), orientation=orientation), exif_orientation=by_exif)
    assert scales == [4]
    assert mean < 1


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}, {"optimize": True}],
    ids=str,
)
def test_every_usual_encoding_is_scaled(scales: list[int], options: dict[str, Any]) -> None:
    mean, _ = apart(jpeg(photograph("chelsea", 900, 700), **options))
    assert scales == [4]
    assert mean < 1


def test_grey_is_scaled(scales: list[int]) -> None:
    mean, _ = apart(jpeg(photograph("coffee", 900, 700, "L")))
    assert scales == [4]
    assert mean < 1


@pytest.mark.parametrize(
    "image",
    [
        jpeg(photograph("coffee", 900, 700, "CMYK")),
        jpeg(photograph("coffee", 900, 700), keep_rgb=True),
        jpeg(photograph("coffee", 290, 280)),  # 3.8 times the size
        jpeg(photograph("coffee", 900, 290)),
        jpeg(photograph("coffee", 900, 700), orientation=9),
        jpeg(photograph("coffee", 900, 700)).replace(b"\xff\xdb", b"\xff\xe1\x00\x10Exif\0\0not TIFF\xff\xdb", 1),
    ],
    ids=["CMYK", "RGB", "too small", "too flat", "ninth orientation", "EXIF that is none"],
)
def test_what_is_not_usual_or_not_large_is_decoded_in_full(scales: list[int], image: bytes) -> None:
    assert apart(image) == (0.0, 0)
    assert scales == []


def test_any_size_of_chroma_is_decoded_whether_or_not_it_is_scaled() -> None:
    """simplejpeg has no name for some, and an error here would fail every image of the batch."""
    for across, down in ((1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 4), (3, 1), (3, 3), (4, 1), (4, 2), (4, 4)):
        mean, _ = apart(jpeg_of_scans(across, down), input_height=16, input_width=16)
        assert mean < 1, (across, down)


def test_without_antialiasing_every_pixel_counts(scales: list[int]) -> None:
    assert apart(jpeg(photograph("coffee", 900, 700)), antialias=False) == (0.0, 0)
    assert scales == []


def test_a_damaged_one_is_judged_by_the_decoder_of_all_others() -> None:
    good = jpeg(photograph("astronaut", 1000, 800))
    rng = np.random.default_rng(0)
    damaged = [good[: len(good) * share // 10] for share in range(1, 10)]
    for _ in range(60):
        broken = bytearray(good)
        for at in rng.integers(2, len(good), 3):
            broken[at] = rng.integers(256)
        damaged.append(bytes(broken))
    for image in damaged:
        scaled, full = (preprocessor(jpeg_scaling=scaling).run([image])[1].tolist() for scaling in (True, False))
        assert scaled == full
    among = [good, damaged[4], jpeg(photo(40, 30)), good]
    pixels, status_n = preprocessor().run(among)
    assert status_n.tolist() == [guard.OK, guard.CORRUPT, guard.OK, guard.OK]
    for row in (0, 3):
        assert (pixels[row] == preprocessor().run([good])[0][0]).all()


@pytest.mark.parametrize(
    ("hw", "new_hw", "scale"),
    [
        ((896, 896), (224, 224), 2),
        ((895, 2000), (224, 500), 1),
        ((3000, 4000), (256, 341), 4),
        ((4096, 4096), (8, 8), 8),
    ],
)
def test_at_least_twice_the_size_is_left(hw: tuple[int, int], new_hw: tuple[int, int], scale: int) -> None:
    assert scaled_jpeg.scale_of(hw, new_hw) == scale
