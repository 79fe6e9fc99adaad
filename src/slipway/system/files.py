"""Hashes, and folders that appear whole or not at all."""

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from slipway.errors import ManifestError, SpecError
from slipway.system.targets import FolderKind, check_folder, kind_of, told

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
_OLD = ".old"
_KEEPING: tuple[FolderKind, ...] = ("repository",)
"""Kinds of folder that keep the one that they replace, where the caller wants it."""
_BLOCK_BYTES = 1 << 20
_VANISHED = "vanished while {} was read; read it again"


class Identity(NamedTuple):
    """Identity of a file: it distinguishes the file from another of the same name, and from its own later content."""

    inode: int
    size: int
    """Size in bytes."""
    modified_ns: int


def identity(path: Path | str) -> Identity:
    return identity_of(os.stat(path))


def identity_of(status: os.stat_result) -> Identity:
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns)


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file; raises ManifestError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(
            path, "rb", buffering=0
        ) as file:  # `file_digest` has a buffer to clear, which small files do not need
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def entries_below(folder: Path) -> dict[str, os.DirEntry[str]]:
    """Everything below `folder` but folders, by relative path and sorted by it; links are not followed.

    Raises:
        FileNotFoundError: a folder vanished meanwhile.
    """
    found: dict[str, os.DirEntry[str]] = {}
    folders = [("", os.fspath(folder))]
    while folders:
        below, path = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{below}{entry.name}/", entry.path))
                else:
                    found[below + entry.name] = entry
    return dict(sorted(found.items()))


def files_below(folder: Path) -> dict[str, Path]:
    """Every regular file below `folder`, by relative path and sorted by it; raises what `names_below` raises."""
    return {name: folder / name for name in names_below(folder)}


def names_below(folder: Path) -> list[str]:
    """The relative path of every regular file below `folder`, sorted; raises what `identities_below` raises."""
    return list(identities_below(folder))


def identities_below(folder: Path) -> dict[str, Identity]:
    """Return an identity of each regular file below `folder`, by relative path and sorted by it; a symbolic link is an
    error.

    Raises:
        ManifestError: there is a link, which could leave the tree, or anything else but files and folders, or a folder
            vanished meanwhile.
    """
    try:
        entries = entries_below(folder)
    except FileNotFoundError as error:
        raise ManifestError(f"{error.filename}: {_VANISHED.format(folder)}") from None
    return {name: _identity_of_file(entry, folder) for name, entry in entries.items()}


def _identity_of_file(entry: "os.DirEntry[str]", folder: Path) -> Identity:
    if entry.is_symlink():
        raise ManifestError(f"{entry.path}: a symbolic link; copy the file itself into the folder")
    if not entry.is_file(follow_symlinks=False):
        raise ManifestError(f"{entry.path}: neither a file nor a folder; remove it")
    try:
        return identity_of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        raise ManifestError(f"{entry.path}: {_VANISHED.format(folder)}") from None


@contextmanager
def complete_folder(
    target: Path, *, kind: FolderKind, inputs: Iterable[Path] = (), keep_former: bool = False
) -> Iterator[Path]:
    """Yield an empty temporary sibling of `target` that takes its place on success, and is removed on any failure.

    With `keep_former`, the folder that was replaced stays beside `target` as `.<name>.former`, and is yielded the next
    time instead of an empty one: to make and to remove thousands of folders takes seconds. The caller removes from it
    what it does not want.

    An existing folder at `target` is replaced only when the new one is complete, and only if `check_folder` allows it.
    The two exchange their names in one step: every open of `target` finds the old folder or the new one, complete. (A
    process that reads by path meanwhile may see files of both, or miss some.) If the file system cannot exchange names,
    `target` is missing between two renames, and a RuntimeWarning says so.

    Only one process at a time may write to `target`. The remains of a killed one are removed first.

    Raises:
        SpecError: something else exists at `target`, or another process is writing it.
        StorageError: the disk is full, read-only or the like, here or in the block.
    """
    check_folder(target, kind=kind, inputs=inputs)
    with told(target), ExitStack() as to_the_end:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent, wait=True):  # no process may treat a folder as abandoned before it is locked
            _clear(target)
            staging = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
            _take_former(target, staging, kind=kind, keep=keep_former)
            to_the_end.callback(shutil.rmtree, staging, ignore_errors=True)
            to_the_end.enter_context(locked(staging))
        staging.chmod(0o755)
        yield staging
        if target.exists():
            _replace(target, staging)
            if keep_former:
                with suppress(OSError):  # another process is removing it
                    os.rename(staging, _former(target))
        else:
            os.rename(staging, target)


def clear_leftovers(target: Path) -> None:
    """Remove the remains beside `target` of a process that was killed while it wrote it.

    Raises:
        SpecError: another process is writing it now.
    """
    with locked(target.parent, wait=True):
        _clear(target)


def _clear(target: Path) -> None:
    for leftover in sorted(path for path in target.parent.iterdir() if path.name.startswith(_prefix(target))):
        try:
            with locked(leftover) as abandoned:
                if leftover.name.endswith(_OLD) and not target.exists():  # killed between the renames of `_replace`
                    os.rename(leftover, target)
                elif abandoned:
                    shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            raise SpecError(f"{target}: another process is writing it ({leftover.name}); wait until it ends") from None
        except FileNotFoundError:  # its process has just removed it
            continue


def _former(target: Path) -> Path:
    return target.with_name(f".{target.name}.former")


def _take_former(target: Path, staging: Path, *, kind: FolderKind, keep: bool) -> None:
    """Move the former folder to `staging`, which is empty; if it is not wanted, or another user's, remove it. Another
    folder of that name stays as it is."""
    former = _former(target)
    if kind not in _KEEPING or not former.is_dir() or former.is_symlink() or kind_of(former) != kind:
        return
    if keep and former.stat().st_uid == os.geteuid():
        os.rename(former, staging)
    else:
        shutil.rmtree(former, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder or file for the block, or until this process ends in any way; False if that is impossible here.

    Raises:
        BlockingIOError: another process holds the lock, and we do not wait.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems lock no folders
        return False
    return True


def _replace(target: Path, staging: Path) -> None:
    """Replace `target` by `staging`; the old folder is then at `staging`, or removed."""
    if _exchange(target, staging):
        return
    warnings.warn(
        f"{target}: this file system cannot exchange two folders in one step; for a moment the folder is missing",
        RuntimeWarning,
        stacklevel=2,
    )
    aside = staging.with_name(staging.name + _OLD)
    os.rename(target, aside)
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False if the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(one))
