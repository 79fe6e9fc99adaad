"""A large JPEG is sent at a fraction of its size, as it is seen; every other image is sent as it is."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from slipway.client.images import load
from slipway.client.shrink import shrunk
from slipway.steps.guard import OK, inspect

ORIENTATION = 0x112


def picture(width: int, height: int) -> Image.Image:
    """Smooth, and another colour in each corner, so that an image that was turned or mirrored is far from it."""
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = 255 * x / width, 255 * y / height, 120 + 60 * np.sin(x / 40) * np.cos(y / 30)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def jpeg(image: Image.Image, *, orientation: int | None = None, **options: Any) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
        exif[0x010E] = "a description that says where it was taken"
    image.save(buffer, "JPEG", **{"quality": 90, "exif": exif, **options})
    return buffer.getvalue()


def seen(encoded: bytes) -> Image.Image:
    """As a person sees it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_photograph_is_sent_at_a_quarter_and_seen_as_before(orientation: int | None, progressive: bool) -> None:
    photograph = jpeg(picture(1201, 903), orientation=orientation, progressive=progressive)
    (sent,) = load([photograph], shrink_px=200)
    assert isinstance(sent, bytes)
    assert inspect(sent) == OK
    assert len(sent) < len(photograph) / 2
    before, after = seen(photograph), seen(sent)
    assert after.size == tuple(round(side / 4) for side in before.size)
    apart = np.abs(np.asarray(before.resize(after.size, Image.Resampling.BOX), int) - np.asarray(after, int))
    assert apart.mean() < 1
    assert b"description" not in sent


@pytest.mark.parametrize(("least_px", "side"), [(100, 100), (101, 200), (200, 200), (201, 400), (400, 400), (401, 800)])
def test_the_shorter_side_keeps_at_least_what_was_asked(least_px: int, side: int) -> None:
    sent = shrunk(jpeg(picture(1600, 800), quality=98), least_px=least_px)
    assert seen(sent).size == (2 * side, side)


def test_grey_stays_grey() -> None:
    sent = shrunk(jpeg(picture(800, 640).convert("L")), least_px=100)
    pixels = np.asarray(seen(sent), int)
    assert pixels.shape[0] == 160
    assert np.ptp(pixels, axis=-1).max() == 0


def encoded(kind: str) -> bytes:
    image = picture(800, 640)
    if kind in {"PNG", "WebP"}:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()
    whole = jpeg(image)
    return {
        "small": jpeg(image.resize((199, 300))),
        "cut short": whole[: len(whole) // 2],
        "damaged": whole[:9000] + bytes(200) + whole[9200:],
        "CMYK": jpeg(image.convert("CMYK")),
        "two EXIFs": whole[:2] + 2 * b"\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08" + whole[2:],
        "nothing": b"",
    }[kind]


@pytest.mark.parametrize("kind", ["small", "cut short", "damaged", "CMYK", "two EXIFs", "nothing", "PNG", "WebP"])
def test_every_other_image_is_sent_as_it_is(kind: str) -> None:
    image = encoded(kind)
    assert shrunk(image, least_px=100) == image


def test_a_small_file_that_says_it_is_huge_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jpeg(picture(800, 640), progressive=True)
    frame = whole.index(b"\xff\xc2") + 5
    bomb = whole[:frame] + b"\xff\xdc\xff\xdc" + whole[frame + 4 :]
    monkeypatch.setattr("slipway.steps.scaled_jpeg.decode", lambda *_: pytest.fail("it was decoded"))
    assert shrunk(bomb, least_px=100) == bomb


def test_an_image_that_would_not_become_smaller_is_sent_as_it_is() -> None:
    image = jpeg(picture(400, 400), quality=2)
    assert shrunk(image, least_px=200) == image


def test_without_the_option_nothing_is_touched() -> None:
    photograph = jpeg(picture(1200, 900))
    assert load([photograph]) == [photograph]
