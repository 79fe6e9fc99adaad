"""Lists a data set's images, from class folders, split folders or a CSV file, before any image is opened."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slipway.contract import DataError, SpecError, check_labels
from slipway.contract.dataset import SPLITS, Split
from slipway.contract.decision import Task
from slipway.contract.spec import Data
from slipway.system.csv_rows import csv_rows
from slipway.system.targets import contains
from slipway.system.text import few
from slipway.training.data.entries import Entry, fault_of, raise_faults

LIKE_SPLITS = {*SPLITS, "training", "val", "valid", "dev", "testing", "eval", "holdout"}
SourceKind = Literal["class folders", "split folders", "CSV"]
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
OTHER_SEPARATORS = (";", ",", "|")
LABEL_COLUMNS: dict[Task, str] = {"multiclass": "label", "multilabel": "labels"}


@dataclass(frozen=True)
class ImageSource:
    """The classes and the images, in a fixed order."""

    origin: SourceKind
    labels: tuple[str, ...]
    """The labels, sorted. Class folders without an image are included."""
    entries: tuple[Entry, ...]


def find(data: Data, *, task: Task) -> ImageSource:
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
        entries = _read_table(Path(data.csv), root=root, task=task, data=data)
        names = sorted({label for entry in entries for label in entry.labels})
        return ImageSource("CSV", check_labels(names, source=data.csv), tuple(entries))
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


def _from_folders(root: Path) -> ImageSource:
    folders = _folders_in(root)
    names = [folder.name for folder in folders]
    if set(names) == set(SPLITS):
        labels = sorted({folder.name for split in SPLITS for folder in _folders_in(root / split)})
        _check_enough(labels, root=root)
        entries = [entry for split in SPLITS for entry in _class_entries(root, Path(split), labels, split)]
        return ImageSource("split folders", check_labels(labels, source=str(root)), tuple(entries))
    if len(names) > 1 and set(names) <= LIKE_SPLITS:
        raise DataError(
            f"{root}: the folders {', '.join(names)} look like splits, not classes; give all of {', '.join(SPLITS)}, "
            "each with a sub-folder per class, or class folders alone, which are split for you"
        )
    _check_enough(names, root=root)
    return ImageSource(
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


class _RowError(Exception):
    """The reason why a row cannot be used."""


@dataclass(frozen=True)
class _Columns:
    """The index of each column in a row; None for an absent column."""

    path: int
    label: int
    split: int | None
    group: int | None


def _read_table(path: Path, *, root: Path, task: Task, data: Data) -> list[Entry]:
    """Read the CSV file `path`; columns that `Data` does not name are ignored, and errors name every unusable row."""
    rows = csv_rows(path, what="data.csv must name a CSV file")
    line, names = next(rows, (0, []))
    if not names:
        raise DataError(f"{path}: empty; its first line must name the columns: path,{LABEL_COLUMNS[task]}")
    columns = _columns(path, names, task=task, data=data)
    resolved, entries, faults = root.resolve(), [], []
    first_lines: dict[str, int] = {}
    for line, row in rows:
        try:
            if len(row) != len(names):
                raise _RowError(f"{len(row)} values for {len(names)} columns; quote a value that holds a comma")
            entry = _entry(row, columns, task=task, separator=data.label_separator)
            if first := first_lines.get(entry.path):
                raise _RowError(f"{entry.path!r} is already in line {first}; write one row per image")
            first_lines[entry.path] = line
            if fault := fault_of(root / entry.path, root=resolved):
                raise _RowError(f"{root / entry.path}: {fault}{_hint(entry.path, root)}")
            entries.append(entry)
        except _RowError as error:
            faults.append(f"line {line}: {error}")
    raise_faults(faults, what=f"rows of {path} cannot be used; correct or remove them")
    if task == "multilabel" and data.labels is None:
        _check_separator(path, entries, data.label_separator)
    return entries


def _check_separator(path: Path, entries: Sequence[Entry], separator: str) -> None:
    """Refuse `red;warm` as one label where the separator stands in no row: a list with another separator."""
    if any(len(entry.labels) > 1 for entry in entries):
        return
    for label in sorted({label for entry in entries for label in entry.labels}):
        if other := next((mark for mark in OTHER_SEPARATORS if mark in label), None):
            raise SpecError(
                f"{path}: {label!r} would be one label, since no row has data.label_separator {separator!r}; write "
                f"data.label_separator: {other!r}, or if it is one label, list the labels in data.labels"
            )


def _columns(path: Path, names: Sequence[str], *, task: Task, data: Data) -> _Columns:
    label = LABEL_COLUMNS[task]
    known = ("path", label, "split", *((data.group_column,) if data.group_column else ()))
    for name in names:
        meant = name.strip().casefold()
        if meant in known and name not in known:
            raise DataError(f"{path}: unknown column {name!r}; write {meant!r}")
    twice = next((name for name in known if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}; remove or rename one")
    if "path" not in names or label not in names:
        raise DataError(f"{path}: {_explain_header(names, task)}")
    if data.group_column is not None and data.group_column not in names:
        raise SpecError(
            f"data.group_column: {data.group_column!r} given, but the columns of {path} are {few([*map(repr, names)])}"
        )
    return _Columns(
        path=names.index("path"),
        label=names.index(label),
        split=names.index("split") if "split" in names else None,
        group=None if data.group_column is None else names.index(data.group_column),
    )


def _explain_header(names: Sequence[str], task: Task) -> str:
    """Say why these columns do not fit the task."""
    for delimiter, word in OTHER_DELIMITERS.items():
        if len(names) == 1 and "path" in names[0].split(delimiter) and names[0] != "path":
            return f"the columns are separated by {word}; save it with commas"
    needed = f"the columns are {few([*map(repr, names)])}; task {task} needs 'path' and {LABEL_COLUMNS[task]!r}"
    other: Task = "multilabel" if task == "multiclass" else "multiclass"
    return f"{needed}; {LABEL_COLUMNS[other]!r} belongs to task: {other}" if LABEL_COLUMNS[other] in names else needed


def _entry(row: Sequence[str], columns: _Columns, *, task: Task, separator: str) -> Entry:
    path = PurePosixPath(row[columns.path])  # drops "./" and double slashes, so that a path has one spelling
    if path == PurePosixPath():
        raise _RowError("an empty path")
    if path.is_absolute() or ".." in path.parts:
        raise _RowError(f"{str(path)!r} leaves data.root; write paths relative to it, without ..")
    split = None
    if columns.split is not None:
        split = next((name for name in SPLITS if name == row[columns.split]), None)
        if split is None:
            raise _RowError(f"split {row[columns.split]!r}; the valid ones are {', '.join(SPLITS)}")
    group = None if columns.group is None else row[columns.group]
    if group == "":
        raise _RowError("an empty group; every row needs one where data.group_column is given")
    return Entry(str(path), _labels(row[columns.label], task=task, separator=separator), split, group)


def _hint(path: str, root: Path) -> str:
    """Guess what is wrong with a path that leads to no image."""
    if "\\" in path:
        return "; write the paths relative to data.root, with / instead of \\"
    if os.path.isdir(root / path):
        return "; it is a folder"
    if path != path.strip() and (root / path.strip()).is_file():
        return "; remove the spaces around the paths"
    return ""


def _labels(cell: str, *, task: Task, separator: str) -> tuple[str, ...]:
    labels = [cell] if task == "multiclass" else cell.split(separator) if cell else []
    for label in labels:
        if not label:
            raise _RowError("an empty label")
        if label != label.strip():
            raise _RowError(f"the label {label!r} begins or ends with a space")
    if len(set(labels)) < len(labels):
        raise _RowError(f"a label occurs twice in {cell!r}")
    return tuple(sorted(labels))
