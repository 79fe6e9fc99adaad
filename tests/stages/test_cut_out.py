"""Only what is cut out of a JPEG is decoded, with the pixels that decoding all of it gives."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.steps import preprocess
from tests.support.bad_images import corpus
from tests.support.grey_levels import preprocessor
from tests.support.image_files import encode, photo

SIZES = ((480, 640), (640, 480), (850, 480), (301, 97), (61, 513), (1201, 300))
FORMS: tuple[dict[str, Any], ...] = (
    {"quality": 95, "subsampling": 0},
    {"quality": 75, "subsampling": 2},
    {"quality": 75, "subsampling": 1, "progressive": True},
    {"quality": 50, "restart_marker_blocks": 3},
)


def both(images: list[bytes], monkeypatch: pytest.MonkeyPatch, **config: Any) -> tuple[Any, Any]:
    """Pixels and statuses with parts decoded, and with everything decoded."""
    run = preprocessor(max_batch=len(images), **config).run
    parts = run(images)
    with monkeypatch.context() as patched:
        patched.setattr(preprocess, "MOST_CUT_OUT", 0)
        return parts, run(images)


@pytest.mark.parametrize("size_wh", SIZES)
@pytest.mark.parametrize("changes", [{}, {"antialias": False}, {"jpeg_scaling": False}])
@pytest.mark.parametrize(("side", "crop_fraction"), [(32, 0.875), (96, 1.0), (224, 0.875)])
def test_a_part_has_the_pixels_of_the_whole(
    size_wh: tuple[int, int],
    changes: dict[str, bool],
    side: int,
    crop_fraction: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = photo(*size_wh, seed=side)
    images = [encode(image, "JPEG", **form) for form in FORMS] + [encode(image.convert("L"), "JPEG")]
    parts, whole = both(images, monkeypatch, height=side, width=side, crop_fraction=crop_fraction, **changes)
    np.testing.assert_array_equal(parts[0], whole[0])
    assert not parts[1].any()


def test_less_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    step, decoded = preprocessor(height=64, width=64, crop_fraction=0.875), list[Any]()
    resize = step._resize

    def seen(images: Any, *rest: Any) -> Any:
        decoded.extend(images)
        return resize(images, *rest)

    monkeypatch.setattr(step, "_resize", seen)
    turned = Image.Exif()
    turned[0x112] = 6
    for image in (photo(150, 75), photo(75, 75)):
        step.run([encode(image, "JPEG")])
        step.run([encode(image, "JPEG", exif=turned)])
        step.run([encode(image, "PNG")])
    shapes = [image.pixels.shape[:2] for image in decoded]
    assert shapes == [(72, 72), (150, 75), (75, 150), (75, 75), (75, 75), (75, 75)]


def test_every_image_of_the_corpus_is_answered_as_if_it_was_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [case.data for case in corpus() if len(case.data) < 100_000]
    parts, whole = both(images, monkeypatch, crop_fraction=0.5)
    np.testing.assert_array_equal(parts[1], whole[1])
    good = whole[1] == 0
    assert good.sum() > 60
    np.testing.assert_array_equal(parts[0][good], whole[0][good])
