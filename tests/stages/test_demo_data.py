"""The demo's data: digits, pages of several, and the new task, odd or even, from few of the digits."""

import csv
import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from slipway.contract import DataError, Manifest
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.spec import Data
from slipway.steps import guard
from slipway.training.data.dataset import scan
from slipway.training.data.demo_data import MINORITY, SIDES_PX, imbalanced_rows, write_digits, write_pages, write_parity
from tests.support.labelled_files import data


def write_checkpoint(folder: Path, labels: tuple[str, ...] = ("0", "1", "7", "8")) -> Path:
    """Ten train images and two of each other split, a digit."""
    folder.mkdir()
    images = tuple(
        LabelledImage(path=f"{label}/{number}.png", class_id=class_id, sha256=f"{class_id}{number}", split=split)
        for class_id, label in enumerate(labels)
        for number, split in enumerate(("train",) * 10 + ("validation",) * 2 + ("test",) * 2)
    )
    Dataset(root="data", labels=labels, images=images).write(folder / "dataset.json")
    Manifest.seal(folder, kind="checkpoint", name="digits")
    return folder


def test_the_splits_are_the_checkpoints_and_the_train_split_is_small(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    counts = write_parity(checkpoint, tmp_path / "new/data.csv", images_per_digit=3, seed=0)
    with (tmp_path / "new/data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert counts == Counter(row["split"] for row in rows) == {"train": 12, "validation": 8, "test": 8}
    splits = {image.path: image.split for image in Dataset.read(checkpoint / "dataset.json").images}
    assert all(splits[row["path"]] == row["split"] for row in rows)
    assert {(row["path"][0], row["label"]) for row in rows} == {
        ("0", "even"),
        ("1", "odd"),
        ("7", "odd"),
        ("8", "even"),
    }
    assert Counter(row["path"][0] for row in rows if row["split"] == "train") == dict.fromkeys("0178", 3)
    text = (tmp_path / "new/data.csv").read_bytes()
    write_parity(checkpoint, tmp_path / "again.csv", images_per_digit=3, seed=0)
    assert (tmp_path / "again.csv").read_bytes() == text
    write_parity(checkpoint, tmp_path / "other.csv", images_per_digit=3, seed=1)
    assert (tmp_path / "other.csv").read_bytes() != text


def test_too_few_images_and_other_labels_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 train images of 0, but 11 asked for"):
        write_parity(write_checkpoint(tmp_path / "a"), tmp_path / "data.csv", images_per_digit=11, seed=0)
    pets = write_checkpoint(tmp_path / "b", ("cat", "dog"))
    with pytest.raises(DataError, match=r"the labels are cat, dog …; give the digits' checkpoint"):
        write_parity(pets, tmp_path / "data.csv", images_per_digit=1, seed=0)
    assert not (tmp_path / "data.csv").exists()


@pytest.fixture
def images(digits: Path) -> Path:
    """The demo's digits, as the verb made them for the session."""
    return digits / "runs/digits/data"


def test_the_demo_s_digits_are_1797_rgb_images_of_mixed_sizes_and_two_formats(images: Path) -> None:
    files = sorted(path for path in images.rglob("*/*") if path.is_file())
    assert len(files) == 1797
    assert sorted(path.name for path in images.iterdir() if path.is_dir()) == [str(digit) for digit in range(10)]
    kinds, square, sides = Counter(), 0, set()
    for path in files:
        encoded = path.read_bytes()
        assert guard.inspect(encoded) == guard.OK
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.mode == "RGB"
            kinds[image.format] += 1
            square += image.width == image.height
            sides |= set(image.size)
    assert kinds == {"JPEG": 1198, "PNG": 599}
    assert 0.6 < square / 1797 < 0.75
    assert (SIDES_PX[0], SIDES_PX[1]) == (48, 512)
    assert 48 <= min(sides) <= 60
    assert 480 <= max(sides) <= 512


def test_the_demo_s_digits_can_be_scanned_and_no_two_are_equal(images: Path) -> None:
    dataset = scan(data(images, validation_fraction=0.1, test_fraction=0.3))
    assert dataset.labels == tuple("0123456789")
    assert len({image.sha256 for image in dataset.images}) == 1797
    assert [len(dataset.of(split)) for split in ("train", "validation", "test")] == [1078, 179, 540]


def test_the_demo_s_digits_are_the_same_bytes_again(images: Path, tmp_path: Path) -> None:
    assert write_digits(tmp_path / "again", seed=0) == 1797
    files = {path.relative_to(images): path.read_bytes() for path in images.rglob("*.*")}
    assert {
        path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*.*")
    } == files


def test_few_of_some_digits_are_in_train_alone_and_no_scan_is_in_two_splits() -> None:
    rows = imbalanced_rows(imbalance=50, seed=3)
    assert len({scan for scan, _ in rows}) == len(rows)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for _, name in rows:
        split, digit = name.split("/")
        found[split][digit] += 1
    assert {found["train"][str(digit)] for digit in MINORITY} == {2}
    assert min(found["train"][str(digit)] for digit in (0, 2, 4, 6, 8)) > 80
    assert min(found["test"].values()) > 50
    assert min(found["validation"].values()) > 30
    assert rows == imbalanced_rows(imbalance=50, seed=3)
    assert rows != imbalanced_rows(imbalance=50, seed=4)


def test_pages_have_one_to_three_labels_in_given_splits_and_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("pages", "again"):
        assert write_pages(tmp_path / name, pages=200, seed=1) == 200
    files = {path.relative_to(tmp_path / "pages"): path.read_bytes() for path in (tmp_path / "pages").rglob("*.*")}
    assert len(files) == 202
    assert all((tmp_path / "again" / path).read_bytes() == content for path, content in files.items())
    table = Data.parse({"root": str(tmp_path / "pages"), "csv": str(tmp_path / "pages/pages.csv")}, source="test")
    dataset = scan(table, task="multilabel")
    assert dataset.labels == tuple("0123456789")
    assert Counter(image.split for image in dataset.images) == {"train": 120, "validation": 30, "test": 50}
    assert {len(image.class_ids) for image in dataset.images} == {1, 2, 3}
