"""What inspecting a data set finds, says and shows, on scanned digits and photographs with known faults."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from slipway.contract import DataError, SpecError
from slipway.training import train
from slipway.training.data.inspection import PAGE, RESULT, Inspection, inspect
from slipway.training.data.inspection.facts import SIDE, View, Viewer
from slipway.training.data.inspection.near_duplicates import BITS, NEAR_BITS, difference_hash, near_groups
from tests.support.bad_images import corpus
from tests.support.colour_training import small_spec as spec
from tests.support.image_files import encode
from tests.support.labelled_files import unique, write_images, write_table
from tests.support.report_builds import Page
from tests.support.scripts import run_here

CASES = {case.name: case.data for case in corpus()}
CHINA, FLOWER = (Image.fromarray(image) for image in load_sample_images().images)
EACH = 20


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    return encode(image, "JPEG", quality=quality)


@pytest.fixture(scope="module")
def scans() -> list[Image.Image]:
    """40 scanned digits of 64 pixels: twenty zeros, twenty ones."""
    digits = load_digits()
    chosen = [scan for digit in (0, 1) for scan in digits.images[digits.target == digit][:EACH]]
    return [Image.fromarray((255 - scan * 15).astype(np.uint8)).resize((64, 64)).convert("RGB") for scan in chosen]


@pytest.fixture
def folders(tmp_path: Path, scans: list[Image.Image]) -> Path:
    """Two class folders of scanned digits, without a fault."""
    root = tmp_path / "data"
    for index, scan in enumerate(scans):
        folder = root / ("one" if index >= EACH else "zero")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:02d}.png").write_bytes(encode(scan, "PNG"))
    return root


@pytest.fixture
def given_splits(folders: Path) -> Path:
    for split, first, end in (("train", 0, 10), ("validation", 10, 15), ("test", 15, 20)):
        for label, offset in (("zero", 0), ("one", EACH)):
            (folders / split / label).mkdir(parents=True)
            for index in range(offset + first, offset + end):
                (folders / label / f"{index:02d}.png").rename(folders / split / label / f"{index:02d}.png")
    for label in ("zero", "one"):
        (folders / label).rmdir()
    return folders


def what(found: Inspection, severity: str) -> list[str]:
    return [problem.what for problem in found.problems if problem.severity == severity]


def test_a_sound_data_set_has_its_counts_and_no_error(folders: Path, tmp_path: Path) -> None:
    found = inspect(spec(folders), tmp_path / "out")
    assert (found.images, found.splits, found.origin) == (40, "drawn", "class folders")
    assert [(count.label, count.images) for count in found.classes] == [("one", 20), ("zero", 20)]
    assert found.classes[0].by_split == {"train": 14, "validation": 3, "test": 3}
    assert found.imbalance_ratio == 1.0
    assert found.width_px is not None
    assert (found.width_px.least, found.width_px.greatest) == (64, 64)
    assert not found.errors
    assert Inspection.read(tmp_path / "out" / RESULT) == found


def test_files_that_serving_would_refuse_are_listed_with_the_reason(folders: Path, tmp_path: Path) -> None:
    for name in ("text", "nothing", "PNG with half of its data", "10000x1 PNG"):
        (folders / "one" / f"{name}.png").write_bytes(CASES[name])
    found = inspect(spec(folders), tmp_path / "out")
    assert {Path(item.path).stem: item.reason for item in found.unreadable} == {
        "text": "unsupported format",
        "nothing": "empty",
        "PNG with half of its data": "corrupt",  # the guard passes it, and the decoder does not
        "10000x1 PNG": "too large",
    }
    assert what(found, "error") == ["4 of 44 files cannot be read"]


def test_an_equal_file_in_two_given_splits_is_an_error_and_training_refuses_it(
    given_splits: Path, tmp_path: Path
) -> None:
    assert not inspect(spec(given_splits), tmp_path / "before").errors
    (given_splits / "test/one/copy.png").write_bytes((given_splits / "train/one/20.png").read_bytes())
    found = inspect(spec(given_splits), tmp_path / "out")
    assert what(found, "error") == ["1 images are in more than one of the given splits, byte for byte"]
    assert [image.path for image in found.exact_duplicates[0].images] == ["train/one/20.png", "test/one/copy.png"]
    with pytest.raises(DataError, match=r"train/one/20\.png \(train\) and test/one/copy\.png \(test\)"):
        train(spec(given_splits), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_equal_files_with_different_labels_are_an_error_and_copies_in_a_class_a_warning(
    folders: Path, tmp_path: Path
) -> None:
    (folders / "zero/copy.png").write_bytes((folders / "zero/00.png").read_bytes())
    (folders / "zero/other.png").write_bytes((folders / "one/20.png").read_bytes())
    found = inspect(spec(folders), tmp_path / "out")
    assert what(found, "error") == ["1 images occur twice, with different labels"]
    assert "1 files are copies of another file, byte for byte" in what(found, "warning")
    assert found.exact_duplicates[0].conflicting
    with pytest.raises(DataError, match="the same image in two classes"):
        train(spec(folders), tmp_path / "checkpoint")


def test_near_duplicates_are_found_across_splits_and_classes(given_splits: Path, tmp_path: Path) -> None:
    (given_splits / "train/one/china.jpg").write_bytes(jpeg(CHINA))
    (given_splits / "test/one/china, small.png").write_bytes(encode(CHINA.resize((320, 213)), "PNG"))
    (given_splits / "train/zero/flower.jpg").write_bytes(jpeg(FLOWER))
    (given_splits / "train/one/flower.jpg").write_bytes(jpeg(FLOWER, 60))
    found = inspect(spec(given_splits), tmp_path / "out")
    assert not found.errors
    assert [sorted(Path(image.path).name for image in group.images) for group in found.near_duplicates] == [
        ["china, small.png", "china.jpg"],
        ["flower.jpg", "flower.jpg"],
    ]
    assert found.near_duplicates[0].across_splits
    assert found.near_duplicates[1].conflicting
    assert {"1 groups of near duplicates span several splits", "1 groups of near duplicates have different labels"} <= {
        *what(found, "warning")
    }


def test_what_keeps_images_from_being_split_is_an_error_and_the_page_is_written(folders: Path, tmp_path: Path) -> None:
    (folders / "two").mkdir()
    found = inspect(spec(folders), tmp_path / "out")
    assert found.splits == "none"
    assert found.imbalance_ratio is None
    assert found.errors[0].remedy.startswith("class 'two' has 0 different images")
    assert "They could not be split" in (tmp_path / "out" / PAGE).read_text()


def test_a_duplicate_hides_no_other_error(folders: Path, tmp_path: Path) -> None:
    (folders / "zero/other.png").write_bytes((folders / "one/20.png").read_bytes())
    (folders / "two").mkdir()
    (folders / "two/bad.png").write_bytes(b"")
    found = inspect(spec(folders), tmp_path / "out")
    assert what(found, "error") == [
        "1 of 42 files cannot be read",
        "1 images occur twice, with different labels",
        "Training would refuse these images",
    ]


def test_imbalance_and_too_few_held_out_images_are_warnings(folders: Path, tmp_path: Path) -> None:
    for number in range(200):
        (folders / "one" / f"more {number}.png").write_bytes(unique(number))
    found = inspect(spec(folders), tmp_path / "out")
    assert found.imbalance_ratio == 11
    assert found.too_plain_to_compare == 200
    assert what(found, "warning")[:2] == [
        "the largest class has 11 times the images of the smallest (one: 220, zero: 20)",
        "2 times a class has fewer than 10 images in a held-out split",
    ]


def test_small_and_long_images_and_labels_that_look_alike_are_warnings(tmp_path: Path) -> None:
    for offset, label in ((0, "Cat"), (100, "cat")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(EACH):
            image = Image.effect_noise((20, 60), offset + number)
            (tmp_path / "data" / label / f"{number}.png").write_bytes(encode(image, "PNG"))
    warnings = "\n".join(what(inspect(spec(tmp_path / "data"), tmp_path / "out"), "warning"))
    assert "100% of the images are smaller than the network's input of 32 by 32" in warnings
    assert "100% of the images have a side over 2 times the other" in warnings
    assert "labels differ only in case" in warnings


def test_images_of_many_labels_are_inspected(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 60)
    cells = ("a|b", "b", "", "c|a")
    table = [["path", "labels"]] + [[name, cells[index % 4]] for index, name in enumerate(names)]
    path = write_table(tmp_path / "table.csv", table)
    data = {"root": str(tmp_path / "data"), "csv": str(path)}
    found = inspect(spec(tmp_path / "data", task="multilabel", data=data), tmp_path / "out")
    assert [count.images for count in found.classes] == [30, 30, 15]
    assert found.without_label == 15
    assert not found.errors


def test_the_page_holds_all_that_it_shows_and_names_from_outside_are_escaped(folders: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)"
    (folders / "one").rename(folders / evil)
    name = '"><img src=x onerror=y>.png'
    (folders / "zero/00.png").rename(folders / "zero" / name)
    inspect(spec(folders), tmp_path / "out")
    page = Page((tmp_path / "out" / PAGE).read_text())
    page.assert_loads_and_runs_nothing()
    assert evil in page.text
    assert len(page.all("img")) == 40


def test_thumbnails_are_the_pictures_and_nothing_else_of_the_file(folders: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    (folders / "one/photo.jpg").write_bytes(encode(CHINA, "JPEG", exif=exif))
    inspect(spec(folders), tmp_path / "out")
    text = (tmp_path / "out" / PAGE).read_text()
    picture = re.search(r'<img src="data:image/jpeg;base64,([^"]+)" alt="one/photo.jpg"', text)
    assert picture is not None
    encoded = base64.b64decode(picture[1])
    assert b"secret" not in encoded
    with Image.open(io.BytesIO(encoded)) as thumbnail:
        assert thumbnail.size == (112, 74)
        expected = np.asarray(CHINA.resize(thumbnail.size), np.float32)
        assert np.abs(np.asarray(thumbnail, np.float32) - expected).mean() < 8


def test_an_inspection_is_repeatable(folders: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        inspect(spec(folders), tmp_path / out)
    for name in (RESULT, PAGE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture(scope="module")
def viewer() -> Viewer:
    return Viewer(exif_orientation=True)


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (30, 30), (1, 50), (113, 112), (64, 1)])
def test_a_view_is_the_whole_picture_in_its_proportions(size: tuple[int, int], viewer: Viewer) -> None:
    (view,) = viewer.view([encode(Image.new("RGB", size, (200, 100, 50)), "PNG")])
    assert isinstance(view, View)
    assert (view.width_px, view.height_px) == size
    assert max(view.pixels_hwc.shape[:2]) == SIDE
    assert (np.abs(view.pixels_hwc.astype(int) - (200, 100, 50)) <= 1).all()  # no padding in it


def test_a_turned_photograph_is_seen_upright(viewer: Viewer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (view,) = viewer.view([encode(CHINA, "JPEG", exif=exif)])
    assert isinstance(view, View)
    assert (view.width_px, view.height_px) == CHINA.size[::-1]


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "another quality": lambda image: jpeg(image, 50),
    "another size": lambda image: encode(image.resize((image.width // 3, image.height // 3)), "PNG"),
    "grey": lambda image: jpeg(image.convert("L")),
    "brighter": lambda image: jpeg(image.point(lambda value: min(255, int(value * 1.1)))),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("photograph", [CHINA, FLOWER], ids=["china", "flower"])
def test_a_copy_is_near_and_another_photograph_is_not(copy: str, photograph: Image.Image, viewer: Viewer) -> None:
    other = FLOWER if photograph is CHINA else CHINA
    first, second, third = (
        difference_hash(view.pixels_hwc)
        for view in viewer.view([jpeg(photograph), COPIES[copy](photograph), jpeg(other)])
        if isinstance(view, View)
    )
    assert (first != second).sum() <= NEAR_BITS
    assert (first != third).sum() > 5 * NEAR_BITS


@given(st.integers(0, 2**31), st.integers(2, 60))
@settings(max_examples=30)
def test_near_groups_are_those_of_every_pair_counted_one_by_one(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    bits_nb = rng.random((3, BITS))[rng.integers(0, 3, count)] < 0.5
    bits_nb ^= rng.random((count, BITS)) < 0.02
    near = [(i, j) for i in range(count) for j in range(i) if (bits_nb[i] != bits_nb[j]).sum() <= NEAR_BITS]
    groups = near_groups(bits_nb)
    of = {index: number for number, (indices, _) in enumerate(groups) for index in indices}
    assert set(of) == {index for pair in near for index in pair}
    assert all(of[i] == of[j] for i, j in near)
    assert [closest for _, closest in groups] == [
        min((bits_nb[i] != bits_nb[j]).sum() for i, j in near if of[i] == number) for number in range(len(groups))
    ]


def test_the_script_ends_with_1_where_training_would_stop_and_with_0_else(folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(json.loads(spec(folders).to_json())))
    script = ("inspect", path, "--out", tmp_path / "out", "--json")
    done = run_here(*script, cwd=tmp_path)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["images"], last["exact_duplicates"], done.returncode) == (40, 0, 0)
    assert "next: slipway train" in done.stdout
    (folders / "one/bad.png").write_bytes(b"not an image")
    done = run_here(*script, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "error: 1 of 41 files cannot be read\n    one/bad.png: unsupported" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["unreadable"] == 1


def test_a_folder_of_somebody_else_is_left_alone(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(SpecError, match="not empty, and not written by this stage"):
        inspect(spec(folders), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
