"""A copy of a journal that is whole while the collector writes, and the way back from it.

The copy has the journal's own layout, and `journal-backup.json` with the SHA-256 of every file but the images, whose
names are theirs. Files beside the database are copied before it, so that no state of the watch is ahead of the rows.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from slipway import __version__
from slipway.contract.base import Contract
from slipway.contract.evidence.origin import now
from slipway.contract.manifest import Sha256
from slipway.errors import SpecError, StorageError
from slipway.operations.journal.store import DATABASE, IMAGES, Store, image_path, in_words, only_collector
from slipway.system.files import complete_folder, files_below, sha256_file
from slipway.system.targets import MARKERS, told

INDEX = MARKERS["journal backup"]
Progress = Callable[[int], object]
"""A function that is called with the number of images since the last call."""
_KEPT = "SELECT sha256, min(bytes) FROM rows WHERE kept = 1 AND sha256 IS NOT NULL GROUP BY sha256"
_BLOCK_BYTES = 1 << 20


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError("leads out of the folder")
    return name


class BackupIndex(Contract):
    """What a backup holds."""

    made: str
    """Time of the backup, in UTC."""
    slipway: str
    """Version that made it."""
    rows: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=0)]
    """Number of images that rows have."""
    files: dict[Annotated[str, AfterValidator(_inside)], Sha256]
    """SHA-256 of every file but the images, by its path."""


class BackedUp(NamedTuple):
    """What a backup holds, and how much of it was new."""

    holds: BackupIndex
    copied: int
    """Images that the backup before did not have."""


def back_up(store: Store, target: Path, *, progress: Progress) -> BackedUp:
    """Write a backup of an open journal to `target`, whole or not at all; one that is there is brought up to date.

    Collectors and people may write meanwhile: the rows are those of one moment. Of the backup before, images that rows
    still have are taken over, and others are left out: what was forgotten or pruned is not in the new one.

    Raises:
        SpecError: something else is at `target`.
        StorageError: the journal is damaged, or the backup cannot be written.
    """
    with complete_folder(target, kind="journal backup", inputs=(store.folder,)) as staging:
        staging.chmod(0o700)
        hashes: dict[str, str] = {}
        for name, path in _beside(store.folder):
            with suppress(FileNotFoundError):  # removed meanwhile
                hashes[name] = _copy(path, staging / name)
        with closing(_snapshot(store, staging / DATABASE)) as rows, in_words(target):
            copied = 0
            for sha256, size in rows.execute(_KEPT).fetchall():
                copied += _keep(store.folder, target, staging, sha256=sha256, size=size, rows=rows)
                progress(1)
            rows.commit()
            (number,) = rows.execute("SELECT count(*) FROM rows").fetchone()
            (images,) = rows.execute(f"SELECT count(*) FROM ({_KEPT})").fetchone()
        hashes[DATABASE] = sha256_file(staging / DATABASE)
        index = BackupIndex(made=now(), slipway=__version__, rows=number, images=images, files=hashes)
        index.write(staging / INDEX)
        (staging / INDEX).chmod(0o600)
    return BackedUp(index, copied)


def restore(backup: Path, journal: Path, *, progress: Progress) -> BackupIndex:
    """Write the journal of a backup to `journal`, which must have none, nor a log of one.

    Every file is checked while it is copied, and the database is written last: a restore that fails or is killed leaves
    no journal, and may be called again.

    Raises:
        SpecError: not a backup, or a journal is there.
        StorageError: a file of the backup is missing or damaged, or the journal cannot be written.
    """
    index = read_backup(backup)
    with only_collector(journal):
        if (journal / DATABASE).exists():
            raise SpecError(f"{journal}: a journal is there, and nothing is written over it; move it away first")
        if logs := sorted(path.name for path in journal.glob(f"{DATABASE}-*")):
            # SQLite would write the pages of such a log over those of the restored database.
            raise SpecError(f"{journal}: {', '.join(logs)} of another journal is there; move it beside its database")
        with told(journal):
            for sha256 in _images(backup):
                _copy(image_path(backup, sha256), image_path(journal, sha256), expected=sha256)
                progress(1)
            for name, sha256 in sorted(index.files.items(), key=lambda one: one[0] == DATABASE):
                _copy(backup / name, journal / name, expected=sha256)
    return index


def read_backup(backup: Path) -> BackupIndex:
    """The index of a backup.

    Raises:
        SpecError: not a backup.
        StorageError: a file or an image is missing, or another file than an image was changed; names it.
    """
    if not (backup / INDEX).is_file():
        raise SpecError(f"{backup}: not a backup, without {INDEX}; give a folder that slipway journal backup wrote")
    index = BackupIndex.read(backup / INDEX)
    for name, sha256 in index.files.items():
        if not (backup / name).is_file():
            raise StorageError(f"{backup / name}: missing; give another backup")
        if sha256_file(backup / name) != sha256:
            raise _changed(backup / name)
    for sha256 in _images(backup):
        if not image_path(backup, sha256).is_file():
            raise StorageError(f"{image_path(backup, sha256)}: missing; give another backup")
    return index


def _images(backup: Path) -> list[str]:
    """SHA-256 of the images that rows of a backup have."""
    path = backup / DATABASE
    with in_words(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as rows:
        found = [sha256 for sha256, _ in rows.execute(_KEPT)]
    if strange := [name for name in found if not re.fullmatch("[0-9a-f]{64}", str(name))]:
        raise StorageError(f"{path}: damaged: {str(strange[0])[:80]!r} is not an image's SHA-256; give another backup")
    return found


def _beside(journal: Path) -> Iterator[tuple[str, Path]]:
    """The journal's files beside database and images: the watch's, the turns', and the name for Label Studio."""
    for entry in sorted(journal.iterdir()):
        if entry.name == IMAGES or entry.name.startswith((DATABASE, ".")):
            continue
        found = files_below(entry) if entry.is_dir() else {"": entry}
        for name, path in found.items():
            if path.suffix != ".lock" and not path.name.startswith("."):  # a file that is being written
                yield str(Path(entry.name, name)), path


def _snapshot(store: Store, target: Path) -> sqlite3.Connection:
    """An open copy of the database as of one moment: one file, without a write-ahead log."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    rows = sqlite3.connect(target)
    try:
        store.copy_into(rows)
        rows.execute("PRAGMA journal_mode = DELETE")
        (said,) = rows.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise StorageError(f"{store.folder / DATABASE}: damaged: {said}; restore the last backup")
    except BaseException:
        rows.close()
        raise
    return rows


def _keep(journal: Path, former: Path, staging: Path, *, sha256: str, size: int, rows: sqlite3.Connection) -> bool:
    """Put an image into the backup; returns whether it was copied. One that was pruned meanwhile is marked so."""
    new, old = image_path(staging, sha256), image_path(former, sha256)
    with suppress(OSError):  # no backup before, or a disk without hard links
        if old.stat().st_size == size:
            _make_private(new.parent)
            os.link(old, new)
            return False
    try:
        _copy(image_path(journal, sha256), new, expected=sha256)
    except FileNotFoundError:
        rows.execute("UPDATE rows SET kept = 0 WHERE sha256 = ?", (sha256,))
        return False
    return True


def _copy(source: Path, target: Path, *, expected: str | None = None) -> str:
    """Copy a file, whole or not at all, so that only its user may read it; returns its SHA-256.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: its SHA-256 is not `expected`.
    """
    digest, new = hashlib.sha256(), target.with_name(f".{target.name}.{os.getpid()}")
    with source.open("rb") as old:
        _make_private(target.parent)
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                while block := old.read(_BLOCK_BYTES):
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if expected not in (None, digest.hexdigest()):
                raise _changed(source)
            new.rename(target)
        finally:
            new.unlink(missing_ok=True)
    return digest.hexdigest()


def _changed(path: Path) -> StorageError:
    return StorageError(f"{path}: damaged: its SHA-256 is not the one that was recorded; look at the disk")


def _make_private(folder: Path) -> None:
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700)
