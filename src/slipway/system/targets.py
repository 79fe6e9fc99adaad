"""Where a stage may write: over what the same kind of stage wrote, and nothing else, least of all its own input."""

import argparse
import errno
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from slipway.errors import SlipwayError, SpecError, StorageError

MANIFEST = "manifest.json"
Sealed = Literal["checkpoint", "bundle", "graph", "engine", "repository"]
"""The kinds of folder with a manifest, which says which kind it is."""
FolderKind = Literal[Sealed, "inspection", "label errors", "search", "digits", "pages"]
MARKERS: dict[FolderKind, str] = {
    "repository": "lane.json",  # of one whose manifest is lost
    "inspection": "inspection.json",
    "label errors": "label_errors.json",
    "search": "study.db",
    "digits": ".slipway-digits",
    "pages": ".slipway-pages",
}
"""The file that marks a folder where there is no manifest."""
Mark = str | tuple[str, ...]
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
    errno.ELOOP: "its links lead in a circle; give another path",
    errno.EIO: "the disk does not work; see the system's log (dmesg)",
}


def kind_of(folder: Path) -> FolderKind | None:
    """What a stage wrote there, by its manifest or, where it has none, by its marker; None: nothing of ours."""
    try:
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kind"]
        return kind if kind in get_args(Sealed) else None
    except (FileNotFoundError, NotADirectoryError):
        return next((kind for kind, marker in MARKERS.items() if (folder / marker).is_file()), None)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # somebody else's, or damaged
        return None


def check_folder(target: Path, *, kind: FolderKind, inputs: Iterable[Path] = ()) -> None:
    """Refuse a folder that may not be written: it is replaced only if it is empty or of the same `kind`.

    Args:
        inputs: files and folders that the stage reads. `target` may neither hold one nor lie in one.

    Raises:
        SpecError: something else stands at `target`, it is an input, or it lies in what another stage wrote.
        StorageError: nothing can be written there.
    """
    with told(target):
        target.exists()  # which fails where the name is too long, or a folder above may not be looked into
    if target.name in ("", ".."):
        raise SpecError(f"{target}: give the folder by its name: {target.resolve()}")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise SpecError(f"{target}: a file or link, where a folder is to be written; remove it or give another path")
    for given in inputs:
        if contains(target, given):
            raise SpecError(f"{target}: holds {given}, which is read for it; give another folder for the {kind}")
        if contains(given, target):
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
    """Refuse a file that may not be written: it is replaced only if it is empty or has `mark` in it.

    Args:
        mark: what only files of this kind have in them; keys are of a JSON object, which has one of them.
        what: the kind of file, with its article.
        inputs: files that are read for it.

    Raises:
        SpecError: something else stands at `target`, it is an input, or it lies in what another stage wrote.
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
    """For argparse, so that it is said before the work and not after it: a path that `check_file` accepts."""

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


def write_file(target: Path, text: str) -> None:
    """Write `text` to `target`, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    with told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.write_text(text, encoding="utf-8")
            staging.replace(target)
        finally:
            staging.unlink(missing_ok=True)


@contextmanager
def told(target: Path) -> Iterator[None]:
    """Turn an OSError that the user can mend into a StorageError; it names `target` where it names no file."""
    try:
        yield
    except OSError as error:
        found = storage_error(error, target=target)
        if found is None:
            raise
        raise found from None


def storage_error(error: OSError, *, target: Path | None = None) -> StorageError | None:
    """One sentence with path, reason and remedy; None where the error is not of files, or not the user's to mend."""
    names = (error.filename2, error.filename)  # of a copy or rename, what is written
    at = next((name for name in names if isinstance(name, str | Path)), None)
    if target is not None and (at is None or f".{target.name}." in str(at)):  # in the temporary sibling of `target`
        at = target
    if error.errno not in REMEDIES or (at is None and error.errno in (errno.EACCES, errno.EPERM)):
        return None
    failed = "cannot be written: " if at == target else ""
    return StorageError(f"{at or 'a file'}: {failed}{error.strerror}; {REMEDIES[error.errno]}")


def _check_surroundings(target: Path) -> None:
    """Refuse what lies in another stage's folder, which it would spoil, and what cannot be written."""
    with told(target):
        parents = Path(os.path.realpath(target)).parents
        for parent in parents:
            kind = kind_of(parent)
            if kind is not None and kind not in GROWING:
                raise SpecError(
                    f"{target}: lies in {parent}, a folder of kind {kind}, which holds nothing else; give another path"
                )
        there = next(parent for parent in parents if parent.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            read_only = os.statvfs(there).f_flag & os.ST_RDONLY
            number = errno.EROFS if read_only else errno.EACCES if there.is_dir() else errno.ENOTDIR
            raise OSError(number, os.strerror(number))


def contains(folder: Path, path: Path) -> bool:
    """Whether `path` is `folder` or lies in it, by whatever names."""
    if not folder.exists():
        return False
    resolved = Path(os.path.realpath(path))
    return any(_same(folder, place) for place in (resolved, *resolved.parents))


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
