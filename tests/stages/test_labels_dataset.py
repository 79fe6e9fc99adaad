"""`slipway labels dataset`: labelled images of the journal join the data set, and nothing crosses its splits."""

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from slipway.contract.dataset import Dataset
from slipway.contract.spec import Data
from slipway.operations.journal.store import sha256_of
from slipway.training.data.dataset import scan
from slipway.training.data.grow_dataset import Grown, open_old
from slipway.training.data.joining import split_by_hash
from slipway.training.learn.train import train
from tests.support.colour_training import small_spec
from tests.support.image_files import encode
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.noise import noise

CLASSES = ("blue", "red")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """`old/data.csv`: 20 images of each class."""
    rows = []
    for place in range(40):
        label, split = CLASSES[place % 2], ("train", "train", "train", "validation", "test")[place // 2 % 5]
        path = tmp_path / "old" / label / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(place))
        rows.append((f"{label}/{place}.png", label, split))
    table = tmp_path / "old/data.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return table


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    return labelled_journal(tmp_path / "gateway", classes=CLASSES)


def label(journal: LabelledJournal, images: list[bytes], *said: str, annotator: str = "ann") -> list[int]:
    rows = journal.add_images(images)
    given = journal.table(("row", "label"), *zip(rows, said, strict=True))
    new = {one for one in said if one not in CLASSES}
    journal.run("add", given, "--annotator", annotator, *(word for one in new for word in ("--new-class", one)))
    return rows


def grown(folder: Path) -> Grown:
    return Grown.read(folder / "grown.json")


def test_the_old_rows_stay_and_new_images_take_the_split_of_their_hash(
    journal: LabelledJournal, old: Path, tmp_path: Path
) -> None:
    images = [noise(1000 + number) for number in range(60)]
    label(journal, images, *(CLASSES[number % 2] for number in range(60)))
    out = tmp_path / "new"
    journal.run("dataset", "--data", old, "--out", out)
    rows = (out / "data.csv").read_text().splitlines()
    assert rows[0] == "path,label,split"
    assert {*old.read_text().split()} - {*rows} == set()
    found = grown(out)
    assert len(found.added) == 60
    assert {one.split for one in found.added} == {"train", "validation", "test"}
    assert all(one.split == split_by_hash(Path(one.path).stem) for one in found.added)
    before, after = open_old(old), scan(Data(root=str(out), csv=str(out / "data.csv")))
    test = {image.path: image.sha256 for image in after.of("test")}
    assert {image.path: image.sha256 for image in before.of("test")}.items() <= test.items()
    assert all((out / one.path).read_bytes() in images for one in found.added)
    again = tmp_path / "again"
    journal.run("dataset", "--data", old, "--out", again)
    assert (again / "data.csv").read_bytes() == (out / "data.csv").read_bytes()
    done = journal.done("dataset", "--data", out, "--out", tmp_path / "third")
    assert "no labelled image can be taken in: 60 are in the old data with the same label" in done.stderr
    assert not (tmp_path / "third").exists()


def test_a_new_class_needs_images_and_its_class_id_comes_last(
    journal: LabelledJournal, old: Path, tmp_path: Path
) -> None:
    label(journal, [noise(2000 + number) for number in range(30)], *["amber"] * 30)
    label(journal, [noise(3000 + number) for number in range(3)], *["cyan"] * 3)
    found = journal.run("dataset", "--data", old, "--out", tmp_path / "new")
    assert (found["labels"], found["new_classes"]) == (["blue", "red", "amber"], ["amber"])
    assert "new class 'cyan': 3 images wait until it has 20" in found["left_out"]
    assert (tmp_path / "new/labels.txt").read_text() == "blue\nred\namber\n"
    dataset = open_old(tmp_path / "new")
    assert dataset.labels == ("blue", "red", "amber")
    assert {dataset.labels[image.class_id] for image in dataset.of("test")} == {*dataset.labels}


def test_a_contradiction_is_named_and_changes_nothing(journal: LabelledJournal, old: Path, tmp_path: Path) -> None:
    blue = (old.parent / "blue/0.png").read_bytes()
    with Image.open(io.BytesIO(blue)) as image:
        near = encode(image, "JPEG", quality=92)
    pair = [noise(5), noise(5, form="JPEG")]
    assert (old.parent / "red/5.png").read_bytes() == pair[0]
    label(journal, [blue, near, noise(7000), *pair[1:]], "red", "red", "blue", "red")
    found = journal.run("dataset", "--data", old, "--out", tmp_path / "new")
    first, second = found["contradictions"]
    assert first == "blue/0.png is 'blue' in the data set, and 'red' by its new label"
    assert "a near duplicate of blue/0.png, which is 'blue'" in second
    added = {one["label"]: one["split"] for one in found["added"]}
    assert added["red"] == next(image.split for image in open_old(old).images if image.path == "red/5.png")


def test_near_duplicates_among_the_new_images_share_a_split(
    journal: LabelledJournal, old: Path, tmp_path: Path
) -> None:
    images = [noise(seed, form=form) for seed in range(8000, 8020) for form in ("PNG", "JPEG")]
    label(journal, images, *["red"] * 40)
    found = journal.run("dataset", "--data", old, "--out", tmp_path / "new")
    splits = {Path(one["path"]).stem: one["split"] for one in found["added"]}
    held = [splits[sha256_of(image)] for image in images]
    pairs = list(zip(held[::2], held[1::2], strict=True))
    assert all(one == other for one, other in pairs)
    assert len(set(pairs)) == 3


def test_divided_annotators_and_lost_images_are_named(journal: LabelledJournal, old: Path, tmp_path: Path) -> None:
    rows = label(journal, [noise(9000), noise(9001), noise(9002), noise(9003)], "red", "red", "red", "red")
    journal.run("add", journal.table(("row", "label"), (rows[0], "blue")), "--annotator", "bob")
    ((sha256,),) = journal.query("SELECT sha256 FROM rows WHERE id = ?", rows[1])
    (journal.folder / "journal/images" / sha256[:2] / sha256).unlink()
    ((sha256,),) = journal.query("SELECT sha256 FROM rows WHERE id = ?", rows[3])
    (damaged := journal.folder / "journal/images" / sha256[:2] / sha256).write_bytes(b"")
    found = journal.run("dataset", "--data", old, "--out", tmp_path / "new")
    assert f"row {rows[0]}: annotators are divided between 'blue' and 'red'" in found["left_out"]
    assert f"row {rows[1]}: its image is no longer kept" in found["left_out"]
    assert f"row {rows[3]}: its image is damaged: {damaged}" in found["left_out"]
    assert len(found["added"]) == 1


def test_class_folders_and_a_checkpoint_are_old_data_too(journal: LabelledJournal, old: Path, tmp_path: Path) -> None:
    label(journal, [noise(9100)], "red")
    (folders := tmp_path / "folders").mkdir()
    for name in CLASSES:
        (old.parent / name).rename(folders / name)
    drawn = scan(Data(root=str(folders)))
    (checkpoint := tmp_path / "checkpoint").mkdir()
    drawn.write(checkpoint / "dataset.json")
    for number, given in enumerate((folders, checkpoint)):
        out = tmp_path / f"new{number}"
        journal.run("dataset", "--data", given, "--out", out)
        after = Dataset.model_validate(open_old(out))
        kept = {image.path: (image.split, image.sha256) for image in after.images}
        assert {image.path: (image.split, image.sha256) for image in drawn.images}.items() <= kept.items()
        assert len(kept) == 41
    (folders / "red/1.png").write_bytes(noise(1))
    (folders / "red/3.png").write_bytes(noise(9999))
    done = journal.done("dataset", "--data", checkpoint, "--out", tmp_path / "new1")
    assert "red/3.png: changed since the data set was split" in done.stderr
    assert json.loads((tmp_path / "new1/grown.json").read_text())["old_images"] == 40


@pytest.mark.nightly
def test_it_trains_with_the_class_ids_of_before(journal: LabelledJournal, old: Path, tmp_path: Path) -> None:
    label(journal, [noise(2000 + number) for number in range(30)], *["amber"] * 30)
    out = tmp_path / "new"
    journal.run("dataset", "--data", old, "--out", out)
    data = {"root": str(out), "csv": str(out / "data.csv"), "labels": str(out / "labels.txt")}
    recipe = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "learning_rate": 0.003}
    train(small_spec(out, data=data, recipe=recipe), tmp_path / "checkpoint")
    trained = Dataset.read(tmp_path / "checkpoint/dataset.json")
    assert trained.labels == ("blue", "red", "amber")
    assert len(trained.images) == 70
    done = journal.done("dataset", "--data", tmp_path / "checkpoint", "--out", tmp_path / "third")
    assert "no labelled image can be taken in: 30 are in the old data" in done.stderr
