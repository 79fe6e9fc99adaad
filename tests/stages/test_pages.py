"""The kit of the pages: axes, charts, wording and thumbnails, and pages in a real browser where there is one."""

import base64
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.benchmark.page import read_files
from slipway.benchmark.page import render as render_speed
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.evidence.evaluation import read_bundle_evaluation
from slipway.pages.charts import LIGHT, SERIES, VARIABLES, Svg, axes, limit, logarithmic, styled, svg
from slipway.pages.tables import Scale
from slipway.pages.thumbnails import SIDE, Thumbnail, Thumbnails
from slipway.pages.wording import points
from slipway.report import render
from slipway.report.evaluation import render as render_evaluation
from slipway.system.files import sha256_bytes
from tests.support.benchmark_results import write_all
from tests.support.chromium import CHROMIUM, painted
from tests.support.evaluated import evaluated
from tests.support.image_files import encode
from tests.support.report_builds import Page, make_served, opened


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


def picture(made: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(made.data_uri.partition(",")[2])))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_image_gets_a_small_picture(tmp_path: Path, mode: str) -> None:
    made = thumbnail(tmp_path, encode(Image.new(mode, (500, 250)), "JPEG" if mode == "CMYK" else "PNG"))
    assert (made.width, made.height, made.flaw) == (SIDE, SIDE // 2, "")
    assert picture(made).mode == "RGB"


def test_a_deep_grey_keeps_its_tone(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((40, 40), 0x8000, np.uint16))
    assert picture(thumbnail(tmp_path, encode(deep, "PNG"))).getpixel((20, 20)) == (128, 128, 128)


def test_nothing_of_the_file_but_its_pixels_gets_to_the_page(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    made = thumbnail(tmp_path, encode(Image.new("RGB", (300, 200)), "JPEG", comment=b"secret words", exif=exif))
    data = base64.b64decode(made.data_uri.partition(",")[2])
    assert b"secret" not in data
    assert b"live" not in data


@pytest.mark.parametrize(("exif_orientation", "size"), [(True, (64, 112)), (False, (112, 64))])
def test_a_thumbnail_is_turned_as_serving_turns_the_image(
    tmp_path: Path, exif_orientation: bool, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(Image.new("RGB", (350, 200)), "JPEG", exif=exif)
    made = thumbnail(tmp_path, encoded, exif_orientation=exif_orientation)
    assert (made.width, made.height) == size


@pytest.mark.parametrize(
    "encoded", [b"", b"no image", encode(Image.new("RGB", (99, 99)), "PNG")[:60]], ids=["empty", "text", "cut"]
)
def test_what_pillow_cannot_read_is_a_reason_and_no_failure(tmp_path: Path, encoded: bytes) -> None:
    made = thumbnail(tmp_path, encoded)
    assert made.data_uri == ""
    assert "image: no thumbnail" in made.flaw


def test_an_image_that_declares_too_many_pixels_is_a_reason(tmp_path: Path) -> None:
    header = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    made = thumbnail(tmp_path, bytes(header))
    assert "no thumbnail" in made.flaw


@styled
def chart(words: str = "", label: str = "Latency") -> Svg:
    drawn = axes(4, 3)
    (dot,) = drawn.plot([1, 100], [3, 40], "o", color=SERIES[0])
    dot.set_gid(f"tip:{words}")
    drawn.set(xlabel=words)
    logarithmic(drawn.xaxis)
    limit(drawn, 30)
    return svg(drawn, label=label)


def test_a_chart_is_text_and_colours_of_the_style_sheet_and_equal_from_equal_input() -> None:
    drawn = chart()
    page = Page(drawn)
    assert {"1", "10", "100", "limit 30 ms"} <= {text.strip() for text in page.drawings["Latency"]}
    assert "var(--s0)" in drawn
    assert "var(--bad)" in drawn
    assert not re.search('#[0-9a-f]{6}[;"]', drawn)
    assert "DejaVu" not in drawn
    assert drawn == chart()


def test_charts_on_one_page_share_no_id() -> None:
    first, second = ({a["id"] for _, a in Page(chart(label=label)).tags if "id" in a} for label in ("a", "b"))
    assert first
    assert not first & second


@pytest.mark.parametrize("words", ["$a$", "</svg><script>", '" onload="x', "{{ 7 * 7 }}", "\\frac"])
def test_words_in_a_chart_are_text_whatever_they_say(words: str) -> None:
    page = Page(chart(words, label=words))
    assert [text for text in page.drawings[words] if text == words] == [
        words,
        words,
    ]  # at the axis and under the pointer
    assert not page.all("script")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_each_colour_of_the_light_palette_stands_for_one_variable() -> None:
    assert len(LIGHT) == len(VARIABLES) >= 17


def pages(folder: Path) -> dict[str, str]:
    """A page of every kit: strips and pictures, charts in pairs, charts as wide as the page."""
    for name in ("built", "evaluated", "results"):
        (folder / name).mkdir()
    bundle = evaluated(folder / "evaluated", labels=[f"a class of number {number}" for number in range(40)])
    results = read_files(list(write_all(folder / "results").values()))
    return {
        "report": render(opened(make_served(folder / "built"))),
        "evaluation": render_evaluation(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task)),
        "speed": render_speed(results),
    }


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [pytest.param(1200, False, marks=pytest.mark.nightly), (390, True)])
def test_a_browser_paints_the_pages_without_a_complaint(tmp_path: Path, width: int, dark: bool) -> None:
    colours = {
        "report": ("#12734a", "#5fd09a"),
        "evaluation": ("#3d5a80", "#93b4dd"),
        "speed": ("#1a66b0", "#6fb1f2"),
    }
    for name, text in pages(tmp_path).items():
        page = tmp_path / f"{name}.html"
        page.write_text(text, encoding="utf-8")
        seen = painted(page, width=width, dark=dark)
        assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
        assert seen.complaints == []
        assert seen.width <= width
        assert seen.too_wide == []
        pixels_hwc = np.asarray(Image.open(io.BytesIO(seen.png)).convert("RGB"))
        colour = [int(colours[name][dark][at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels_hwc == colour).all(axis=2).sum() > 500, name
