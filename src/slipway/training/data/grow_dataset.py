"""Writes the next version of a data set: the old images in their splits, and labelled images of the journal."""

import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from slipway.contract import DataError, Preprocess, Spec, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import SPLITS, Dataset, NewImage, Split
from slipway.contract.spec import Data
from slipway.contract.typed_file import Evidence
from slipway.system.files import complete_folder, sha256_bytes, sha256_file
from slipway.system.targets import MARKERS
from slipway.system.text import few
from slipway.training.data.dataset import scan
from slipway.training.data.inspection.facts import Viewer
from slipway.training.data.joining import join

RESULT, TABLE, LABELS = MARKERS["grown data set"], "data.csv", "labels.txt"
FOLDER = "labelled"
SHOWN = 10
"""Left-out images that an error lists."""
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


class Added(Evidence):
    """An image that was taken in."""

    path: str
    label: str
    split: Split


class Grown(Evidence):
    """`grown.json`: how a data set differs from the one before."""

    old_root: str
    old_images: int
    old_test_sha256: str
    """SHA-256 of the old test split: path, label and SHA-256 of each image."""
    labels: tuple[str, ...]
    """Labels of the data set; the old ones come first, in their order."""
    new_classes: tuple[str, ...]
    splits: dict[str, int]
    """Number of images in each split."""
    added: tuple[Added, ...]
    already: int
    """Labelled images that the old data had, with the same label."""
    contradictions: tuple[str, ...]
    left_out: tuple[str, ...]

    def lines(self) -> list[str]:
        """The summary for people."""
        counts = Counter(one.split for one in self.added)
        splits = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        by_class = Counter(one.label for one in self.added)
        classes = few([f"{label} {count}" for label, count in sorted(by_class.items())])
        lines = [f"{self.old_images:,} old images in their splits, and {len(self.added):,} labelled ones ({splits})"]
        lines += [f"  by class: {classes}"] if by_class else []
        lines += [f"  new classes: {', '.join(self.new_classes)}"] if self.new_classes else []
        lines += [f"  {self.already} labelled images were in the old data, with the same label"] if self.already else []
        lines += [f"  contradiction: {said}" for said in self.contradictions]
        lines += [f"  left out: {said}" for said in self.left_out]
        return [*lines, f"  images now: {', '.join(f'{split} {self.splits[split]:,}' for split in SPLITS)}"]


def open_old(given: Path, *, root: Path | None = None) -> Dataset:
    """The old data set: a folder with `dataset.json` (checkpoint, bundle), a spec, a CSV file or class folders.

    Splits that are not given are drawn as a spec's default draws them; a checkpoint or a spec says how they were drawn.

    Raises:
        DataError: images are missing, or differ from those that were trained on.
        SpecError: it is none of these, or has several labels for an image.
    """
    recorded = given / DATASET if given.is_dir() else given
    if root is not None and given.suffix != ".csv":
        raise SpecError("--root: the folder of a CSV file's paths; leave it out, or give --data a CSV file")
    if recorded.name == DATASET and recorded.is_file():
        dataset = Dataset.read(recorded)
    elif given.suffix in (".yaml", ".yml", ".json"):
        spec = Spec.read(given)
        dataset = scan(spec.data, task=spec.task)
    elif (given / RESULT).is_file():
        dataset = _recorded(given)
    elif given.is_dir():
        dataset = scan(Data(root=str(given)))
    else:
        dataset = scan(Data(root=str(root or given.parent), csv=str(given)))
    if several := [image.path for image in dataset.images if len(image.class_ids) != 1]:
        raise SpecError(
            f"{given}: {several[0]} has {'several labels' if dataset.labels else 'no label'}; only data with "
            "one label for each image can be added to"
        )
    return dataset


def _recorded(folder: Path) -> Dataset:
    """The data set that an earlier call wrote; its labels keep their order."""
    before = Grown.read(folder / RESULT)
    return scan(Data(root=str(folder), csv=str(folder / TABLE)), labels=before.labels)


def grow(old: Dataset, new: Sequence[NewImage], out: Path, *, least: int, left_out: Sequence[str] = ()) -> Grown:
    """Write `data.csv`, `labels.txt`, the images and `grown.json` to the folder `out`, whole or not at all.

    Old images are linked where the file system can, else copied; their paths and splits stay. What was written is read
    by the code that trains before it is there.

    Args:
        left_out: a sentence on each labelled image that does not get here.

    Raises:
        DataError: an old image is missing or has changed; or no labelled image can be taken in.
        SpecError: `out` holds something else.
    """
    with complete_folder(out, kind="grown data set", inputs=[Path(old.root)]) as staging:
        viewer = Viewer(exif_orientation=Preprocess.model_fields["exif_orientation"].default)
        joined = join(old, new, viewer=viewer, least=least)
        if not joined.images:
            said = [*left_out, *joined.contradictions, *joined.left_out]
            already = f"no labelled image can be taken in: {joined.already} are in the old data with the same label"
            raise DataError(
                f"{out}: {already if new or said else 'no image has a label yet'}"
                + "".join(f"\n  {one}" for one in said[:SHOWN])
                + (f"\n  … and {len(said) - SHOWN} more" if len(said) > SHOWN else "")
                + "; label more images (slipway labels select)"
            )
        new_classes = sorted({image.label for image, _ in joined.images} - {*old.labels})
        _link(old, staging)
        added = [_copy(image, split, staging) for image, split in joined.images]
        labels = (*old.labels, *new_classes)
        _write_table(old, added, staging)
        (staging / LABELS).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        written = scan(Data(root=str(staging), csv=str(staging / TABLE)), labels=labels)
        if digest_of_test(old, among=old) != digest_of_test(written, among=old):
            raise DataError(
                f"{out}: the old test split would have other images or labels; nothing was written. Run this again "
                f"while nothing else writes to {old.root}; if it fails again, report it as a fault of Slipway"
            )
        result = Grown(
            old_root=old.root,
            old_images=len(old.images),
            old_test_sha256=digest_of_test(old, among=old),
            labels=labels,
            new_classes=tuple(new_classes),
            splits={split: len(written.of(split)) for split in SPLITS},
            added=tuple(added),
            already=joined.already,
            contradictions=joined.contradictions,
            left_out=(*left_out, *joined.left_out),
        )
        result.write(staging / RESULT)
    return result


def digest_of_test(dataset: Dataset, *, among: Dataset) -> str:
    """SHA-256 of a test split: path, label and SHA-256 of each image.

    Args:
        among: the data set whose images are looked at; others are left out.
    """
    known = {image.path for image in among.images}
    rows = sorted(
        f"{image.path}\t{dataset.labels[image.class_id]}\t{image.sha256}\n"
        for image in dataset.of("test")
        if image.path in known
    )
    return sha256_bytes("".join(rows).encode())


def _link(old: Dataset, staging: Path) -> None:
    for image in tqdm(old.images, desc="copying images", unit="image", leave=False, disable=None):
        path = PurePosixPath(image.path)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{image.path}: leaves {old.root}; give a data set whose paths are below its root")
        source, target = Path(old.root) / image.path, staging / image.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not source.is_file():
            old.load(image)  # says why
        linked = False
        with suppress(OSError):  # another file system, or one without links
            os.link(source.resolve(), target)
            linked = True
        if not linked:
            shutil.copyfile(source, target)
        if sha256_file(target) != image.sha256:
            old.load(image)
            raise DataError(f"{source}: changed while it was copied; run this again")


def _copy(image: NewImage, split: Split, staging: Path) -> Added:
    path = f"{FOLDER}/{image.sha256}{SUFFIXES.get(image.format or '', '')}"
    target = staging / path
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(image.file, target)
    if sha256_file(target) != image.sha256:
        raise DataError(
            f"{image.file}: not the image of its name, its SHA-256, so the journal is damaged; restore its last backup"
        )
    return Added(path=path, label=image.label, split=split)


def _write_table(old: Dataset, added: Sequence[Added], staging: Path) -> None:
    grouped = any(image.group is not None for image in old.images)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "split", *(["group"] if grouped else [])])
    rows: list[list[Any]] = []
    for image in old.images:
        rows.append([image.path, old.labels[image.class_id], image.split, *([image.group] if grouped else [])])
    for one in added:
        rows.append([one.path, one.label, one.split, *([PurePosixPath(one.path).stem] if grouped else [])])
    writer.writerows(rows)
    (staging / TABLE).write_text(table.getvalue(), encoding="utf-8", newline="")
