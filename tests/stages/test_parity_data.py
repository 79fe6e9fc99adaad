"""The demo's new task: odd or even, from few of the digits that a checkpoint was trained on."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from slipway.contract import DataError, Manifest
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.training.data.demo_data import write_parity


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
