"""Lists a data set's images, from class folders, split folders or a CSV file, before any image is opened."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.contract import DataError, SpecError, check_labels
from slipway.contract.dataset import SPLITS, Split
from slipway.contract.decision import Task
from slipway.contract.spec import Data
from slipway.system.targets import contains
from slipway.training.data.entries import Entry, fault_of, raise_faults
from slipway.training.data.table import read_table

LIKE_SPLITS = {*SPLITS, "training", "val", "valid", "dev", "testing", "eval", "holdout"}
Origin = Literal["class folders", "split folders", "CSV"]


@dataclass(frozen=True)
class Source:
    """The classes and the images, in a fixed order."""

    origin: Origin
    labels: tuple[str, ...]
    """The labels, sorted. Class folders without an image are included."""
    entries: tuple[Entry, ...]


def find(data: Data, *, task: Task) -> Source:
    """List the images of `data`. Hidden files and folders are skipped.

    Raises:
        DataError: the folder does not exist, there are fewer than two classes, some but not all split folders exist,
            files are missing or lie outside the root, or rows of the CSV file cannot be used.
        SpecError: a label is not allowed, or the source does not fit the task.
    """
    root = Path(data.root)
    if not root.is_dir():
        what = "one folder with a sub-folder of images per class"
        what = what if data.csv is None else "the folder that the paths in data.csv start from"
        raise DataError(f"{root}: no such folder; data.root is {what}")
    if data.csv is not None:
        entries = read_table(Path(data.csv), root=root, task=task, data=data)
        names = sorted({label for entry in entries for label in entry.labels})
        return Source("CSV", check_labels(names, source=data.csv), tuple(entries))
    if task == "multilabel":
        raise SpecError("data: class folders give one label per image; task multilabel needs data.csv with `labels`")
    try:
        return _from_folders(root)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def read_from(data: Data, *, out: Path) -> list[Path]:
    """Return the paths of `data` that a stage writing the folder `out` reads, for `check_folder`.

    A root of class folders holds nothing else. A root whose images a CSV file lists may hold `out` but not lie in it.
    """
    root = Path(data.root)
    if data.csv is None:
        return [root]
    return [Path(data.csv)] if contains(root, out) else [Path(data.csv), root]


def _from_folders(root: Path) -> Source:
    folders = _folders_in(root)
    names = [folder.name for folder in folders]
    if set(names) == set(SPLITS):
        labels = sorted({folder.name for split in SPLITS for folder in _folders_in(root / split)})
        _check_enough(labels, root=root)
        entries = [entry for split in SPLITS for entry in _class_entries(root, Path(split), labels, split)]
        return Source("split folders", check_labels(labels, source=str(root)), tuple(entries))
    if len(names) > 1 and set(names) <= LIKE_SPLITS:
        raise DataError(
            f"{root}: the folders {', '.join(names)} look like splits, not classes; give all of {', '.join(SPLITS)}, "
            "each with a sub-folder per class, or class folders alone, which are split for you"
        )
    _check_enough(names, root=root)
    return Source(
        "class folders", check_labels(names, source=str(root)), tuple(_class_entries(root, Path(), names, None))
    )


def _check_enough(labels: Sequence[str], *, root: Path) -> None:
    if len(labels) < 2:
        found = ", ".join(labels) or "none"
        raise DataError(f"{root}: class folders found: {found}; a classifier needs at least two")


def _folders_in(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_entries(root: Path, below: Path, labels: Iterable[str], split: Split | None) -> list[Entry]:
    """Return the files of each class folder in `root / below`, class by class."""
    found = [(path, label) for label in labels for path in _files_below(root / below / label)]
    faults = [f"{path}: {fault}" for path, _ in found if (fault := fault_of(path, root=root.resolve()))]
    raise_faults(faults, what="files cannot be used; repair or remove them")
    return [Entry(path.relative_to(root).as_posix(), (label,), split) for path, label in found]


def _fail(error: OSError) -> None:
    raise error


def _files_below(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted; links to folders are errors, since a walk would silently skip them."""
    found: list[Path] = []
    if folder.is_symlink():
        raise DataError(f"{folder}: a link to a folder; put the folder itself there, or list the images in data.csv")
    for parent, folders, files in os.walk(folder, onerror=_fail):  # by default a walk skips unreadable folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise DataError(f"{Path(parent) / name}: a link to a folder; put the folder itself there")
        found += [Path(parent) / name for name in files if not name.startswith(".")]
    return sorted(found)
