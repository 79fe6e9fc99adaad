"""Axes and thumbnails of the report, and the page in a real browser where there is one."""

import base64
import io
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.contract.dataset import Dataset, LabelledImage
from slipway.report import render
from slipway.report.charts import Scale
from slipway.report.thumbnails import SIDE, Thumbnail, Thumbnails
from slipway.report.wording import points
from slipway.system.files import sha256_bytes
from tests.support.report_builds import make_served, opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@given(st.lists(st.floats(-1e6, 1e6), max_size=5))
def test_an_axis_holds_zero_and_every_value_between_few_ticks(values: list[float]) -> None:
    scale = Scale.over(values)
    assert 2 <= len(scale.ticks) <= 5
    assert scale.low <= 0.0 <= scale.high
    assert all(scale.low - 1e-6 * scale.step <= value <= scale.high + 1e-6 * scale.step for value in values)
    assert [scale.ticks[0][0], scale.ticks[-1][0]] == [0.0, 100.0]


def test_an_axis_has_round_numbers() -> None:
    assert [text for _, text in Scale.over([-0.68, 3.14]).ticks] == ["−2", "0", "2", "4"]  # noqa: RUF001
    assert Scale.over([0.093]).ticks == [(0.0, "0.00"), (50.0, "0.05"), (100.0, "0.10")]


def test_an_outlier_does_not_press_the_others_together() -> None:
    scale = Scale.over([-1.0, 1.5, 80.0], most=9.0)
    assert scale.high == 10.0
    assert scale.holds(1.5)
    assert not scale.holds(80.0)
    assert scale.at(80.0) == 100.0


@pytest.mark.parametrize(("given_points", "text"), [(0.0, "0.00"), (-0.001, "0.00"), (1.5, "+1.50"), (-2.0, "−2.00")])  # noqa: RUF001
def test_points_carry_their_sign(given_points: float, text: str) -> None:
    assert points(given_points) == text


def thumbnail(folder: Path, encoded: bytes, *, exif_orientation: bool = True) -> Thumbnail:
    (folder / "image").write_bytes(encoded)
    entry = LabelledImage(path="image", class_id=0, sha256=sha256_bytes(encoded), split="test")
    dataset = Dataset(root=str(folder), labels=("a", "b"), images=(entry,))
    return Thumbnails(dataset, exif_orientation=exif_orientation).of("image")


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(made: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(made.data_uri.partition(",")[2])))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_image_gets_a_small_picture(tmp_path: Path, mode: str) -> None:
    made = thumbnail(tmp_path, file_of(Image.new(mode, (500, 250)), "JPEG" if mode == "CMYK" else "PNG"))
    assert (made.width, made.height, made.flaw) == (SIDE, SIDE // 2, "")
    assert picture(made).mode == "RGB"


def test_a_deep_grey_keeps_its_tone(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((40, 40), 0x8000, np.uint16))
    assert picture(thumbnail(tmp_path, file_of(deep, "PNG"))).getpixel((20, 20)) == (128, 128, 128)


def test_nothing_of_the_file_but_its_pixels_gets_to_the_page(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    made = thumbnail(tmp_path, file_of(Image.new("RGB", (300, 200)), "JPEG", comment=b"secret words", exif=exif))
    data = base64.b64decode(made.data_uri.partition(",")[2])
    assert b"secret" not in data
    assert b"live" not in data


@pytest.mark.parametrize(("exif_orientation", "size"), [(True, (64, 112)), (False, (112, 64))])
def test_a_thumbnail_is_turned_as_serving_turns_the_image(
    tmp_path: Path, exif_orientation: bool, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = file_of(Image.new("RGB", (350, 200)), "JPEG", exif=exif)
    made = thumbnail(tmp_path, encoded, exif_orientation=exif_orientation)
    assert (made.width, made.height) == size


@pytest.mark.parametrize(
    "encoded", [b"", b"no image", file_of(Image.new("RGB", (99, 99)), "PNG")[:60]], ids=["empty", "text", "cut"]
)
def test_what_pillow_cannot_read_is_a_reason_and_no_failure(tmp_path: Path, encoded: bytes) -> None:
    made = thumbnail(tmp_path, encoded)
    assert made.data_uri == ""
    assert "image: no thumbnail" in made.flaw


def test_an_image_that_declares_too_many_pixels_is_a_reason(tmp_path: Path) -> None:
    header = bytearray(file_of(Image.new("L", (8, 8)), "PNG"))
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    made = thumbnail(tmp_path, bytes(header))
    assert "no thumbnail" in made.flaw


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_paints_the_page(tmp_path: Path, width: int) -> None:
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(render(opened(make_served(tmp_path))), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    quiet = ("--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}")
    command = [str(CHROMIUM), *flags, *quiet, f"--screenshot={shot}", f"--window-size={width},900", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels_hwc = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels_hwc.shape[1] == width
    green = (pixels_hwc == (0x12, 0x73, 0x4A)).all(axis=2)  # of the style sheet: the cpu lane serves
    assert green.sum() > 500
