"""Checks where a stage may write: it replaces only results of its own kind, and never its own input."""

import argparse
import errno
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from slipway.errors import SlipwayError, SpecError, StorageError

MANIFEST = "manifest.json"
Sealed = Literal["checkpoint", "bundle", "base", "graph", "engine", "repository"]
"""The kinds of folder with a manifest, which names the kind."""
FolderKind = Literal[
    Sealed,
    "inspection",
    "label errors",
    "search",
    "digits",
    "pages",
    "index",
    "layout of images",
    "monitoring",
    "grown data set",
    "rendered",
    "journal backup",
    "sheet of labels",
]
MARKERS: dict[FolderKind, str] = {
    "repository": "lane.json",  # of a repository without its manifest
    "inspection": "inspection.json",
    "label errors": "label_errors.json",
    "search": "study.db",
    "digits": ".slipway-digits",
    "pages": ".slipway-pages",
    "layout of images": "oci-layout",  # before the index, whose marker it has too
    "index": "index.json",
    "rendered": ".slipway-rendered",
    "monitoring": ".slipway-monitoring",
    "grown data set": "grown.json",
    "journal backup": "journal-backup.json",
}
"""The file that marks a folder of this kind if it has no manifest."""
Mark = str | tuple[str, ...]
Place = tuple[int, int]
"""Device and inode."""
_LEAST_BYTES = 4096
"""Size of the file that shows whether a disk takes one: a block."""
GROWING: tuple[FolderKind, ...] = ("search",)
"""Kinds of folder that other stages write into."""
REMEDIES = {
    errno.ENOSPC: "free some space, or give a path on another disk",
    errno.EDQUOT: "free some of your quota, or give a path on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "give a path on a disk that can be written",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a part of the path is a file; give another path",
    errno.EISDIR: "a folder stands there; give another path",
    errno.EEXIST: "a file stands there; give another path",
    errno.ELOOP: "its links lead in a circle; give another path",
    errno.EIO: "the disk is faulty; see the system's log (dmesg)",
}


def kind_of(folder: Path) -> FolderKind | None:
    """The kind of a folder, by its manifest or, without one, by its marker; None if Slipway did not write it."""
    try:
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kind"]
        return kind if kind in get_args(Sealed) else None
    except (FileNotFoundError, NotADirectoryError):
        return next((kind for kind, marker in MARKERS.items() if (folder / marker).is_file()), None)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # not of Slipway, or damaged
        return None


def check_folder(target: Path, *, kind: FolderKind, inputs: Iterable[Path] = ()) -> None:
    """Raise unless the folder may be written: it is replaced only if it is empty or of the same `kind`.

    Args:
        inputs: files and folders that the stage reads. `target` may neither contain one nor be inside one.

    Raises:
        SpecError: something else exists at `target`, it is an input, or it is inside a folder of another stage.
        StorageError: nothing can be written there.
    """
    with told(target):
        target.exists()  # fails if the name is too long, or a parent folder may not be read
    if target.name in ("", ".."):
        raise SpecError(f"{target}: give the folder by its name: {target.resolve()}")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise SpecError(f"{target}: a file or link, where a folder is to be written; remove it or give another path")
    place, above, place_of = _place(target), _places(target, _place), cache(_place)
    for given in inputs:
        if place is not None and place in _places(given, place_of):
            raise SpecError(f"{target}: holds {given}, which is read for it; give another folder for the {kind}")
        if place_of(given) in above:
            raise SpecError(f"{target}: lies in {given}, which is read for it; give another folder for the {kind}")
    _check_surroundings(target)
    found = kind_of(target)
    if found not in (None, kind):
        raise SpecError(f"{target}: of kind {found}, and one of kind {kind} is to be written; give another folder")
    with told(target):
        if found is None and target.is_dir() and any(target.iterdir()):
            raise SpecError(
                f"{target}: not empty, and not written by this stage (a {kind}); give another folder, or remove it"
            )


def check_file(target: Path, *, mark: Mark, what: str, inputs: Iterable[Path] = ()) -> None:
    """Raise unless the file may be written: it is replaced only if it is empty or contains `mark`.

    Args:
        mark: text that only files of this kind contain, or keys of which their JSON object has one.
        what: the kind of file, with its article.
        inputs: files that are read for it.

    Raises:
        SpecError: something else exists at `target`, it is an input, or it is inside a folder of another stage.
        StorageError: nothing can be written there.
    """
    with told(target):
        target.exists()
    if target.exists() and not target.is_file():
        raise SpecError(f"{target}: a folder or device, where {what} is to be written; give another file")
    for given in inputs:
        if given.exists() and _same(target, given):
            raise SpecError(f"{target}: read for {what} that is to be written; give another file")
    _check_surroundings(target)
    with told(target):
        if target.exists() and not _holds(target, mark):
            raise SpecError(f"{target}: not {what}, and nothing else is replaced; give another file, or remove it")


def file_option(mark: Mark, *, what: str) -> Callable[[str], Path]:
    """A type for argparse, so that a path that `check_file` refuses is reported before the work."""

    def checked(text: str) -> Path:
        path = Path(text)
        try:
            check_file(path, mark=mark, what=what)
        except SlipwayError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{text} cannot be written: give a file in a folder that exists")
        return path

    return checked


def write_file(target: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write `content` to `target`, completely or not at all.

    Args:
        mode: permissions of the file, from its first byte on; by default those of a new file.

    Raises:
        StorageError: the file cannot be written.
    """
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    with told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if mode is not None:
                staging.touch(mode=0o600)
                staging.chmod(mode)
            staging.write_bytes(content if isinstance(content, bytes) else content.encode())
            staging.replace(target)
        finally:
            staging.unlink(missing_ok=True)


@contextmanager
def told(target: Path) -> Iterator[None]:
    """Turn an OSError that the user can fix into a StorageError, which names `target` if the OSError names no file."""
    try:
        yield
    except OSError as error:
        found = storage_error(error, target=target)
        if found is None:
            raise
        raise found from None


def storage_error(error: OSError, *, target: Path | None = None) -> StorageError | None:
    """The error as one sentence with path, reason and remedy; None if the user cannot fix it."""
    names = (error.filename2, error.filename)  # of a copy or rename, the target first
    at = next((name for name in names if isinstance(name, str | Path)), None)
    if target is not None and (at is None or f".{target.name}." in str(at)):  # the temporary sibling of `target`
        at = target
    if error.errno not in REMEDIES or (at is None and error.errno in (errno.EACCES, errno.EPERM)):
        return None
    failed = "cannot be written: " if at == target else ""
    return StorageError(f"{at or 'a file'}: {failed}{error.strerror}; {REMEDIES[error.errno]}")


def _check_surroundings(target: Path) -> None:
    """Raise if `target` is inside a folder of another stage, or cannot be written."""
    with told(target):
        parents = Path(os.path.realpath(target)).parents
        for parent in parents:
            kind = kind_of(parent)
            if kind is not None and kind not in GROWING:
                raise SpecError(
                    f"{target}: lies in {parent}, a folder of kind {kind}, which holds nothing else; give another path"
                )
        there = next(parent for parent in parents if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=there) as file:  # permissions alone do not tell of a full disk, or of /proc
                file.write(bytes(_LEAST_BYTES))
        except OSError as error:
            number = errno.EROFS if error.errno == errno.ENOENT else error.errno  # /proc takes no new file
            raise OSError(number, os.strerror(number or 0)) from None


def contains(folder: Path, path: Path) -> bool:
    """Whether `path` is `folder` or inside it, whatever names and links lead there."""
    place = _place(folder)
    return place is not None and place in _places(path, _place)


def _place(path: Path) -> Place | None:
    """Return the identity of a file or folder, whatever names and links lead there; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _places(path: Path, place_of: "Callable[[Path], Place | None]") -> set[Place]:
    """The places of `path`, if it exists, and of the folders that it is in."""
    resolved = Path(os.path.realpath(path))
    return {place for one in (resolved, *resolved.parents) if (place := place_of(one)) is not None}


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _holds(path: Path, mark: Mark) -> bool:
    if not path.stat().st_size:
        return True
    if not isinstance(mark, str):
        try:
            return not {*mark}.isdisjoint(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError):
            return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(mark.encode()) >= 0
