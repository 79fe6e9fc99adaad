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
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from slipway import __version__
from slipway.contract.evidence.origin import now
from slipway.contract.manifest import Sha256
from slipway.contract.typed_file import Contract
from slipway.errors import SpecError, StorageError
from slipway.operations.journal.sqlite_errors import in_words
from slipway.operations.journal.store import DATABASE, IMAGES, VERSION, Store, image_path, only_collector
from slipway.system.files import complete_folder, files_below, sha256_file
from slipway.system.targets import MARKERS, told
from slipway.system.text import command

INDEX = MARKERS["journal backup"]
Progress = Callable[[int], object]
"""A function that is called with the number of images since the last call."""
_KEPT = "SELECT DISTINCT sha256 FROM rows WHERE kept = 1 AND sha256 IS NOT NULL ORDER BY sha256"
_WAYS_OUT = "give another backup, or restore --without-damaged"
_BLOCK_BYTES = 1 << 20


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError("leads out of the folder")
    return name


class BackupIndex(Contract):
    """Index of a backup's files."""

    made: str
    """Time of the backup, in UTC."""
    slipway: str
    """Version that made it."""
    rows: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=0)]
    """Number of images that rows have."""
    files: dict[Annotated[str, AfterValidator(_inside)], Sha256]
    """SHA-256 of every file but the images, by its path."""

    @field_validator("files")
    @classmethod
    def _has_the_database(cls, files: dict[str, str]) -> dict[str, str]:
        if DATABASE not in files:
            raise ValueError(f"does not name {DATABASE}")
        return files


def back_up(store: Store, target: Path, *, progress: Progress) -> tuple[BackupIndex, int]:
    """Write a backup of an open journal to `target`, whole or not at all; one that is there is brought up to date.

    Collectors and people may write meanwhile: the rows are those of one moment. Of the backup before, images that rows
    still have and whose SHA-256 is right are taken over. What was forgotten or pruned is not in the new one.

    Returns:
        The content, and the number of images that the backup before did not have, or had damaged.

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
        with closing(_snapshot(store, staging / DATABASE, backup=target)) as rows, in_words(target):
            copied = 0
            for (sha256,) in rows.execute(_KEPT).fetchall():
                copied += _keep(store, target, staging, sha256=sha256, rows=rows)
                progress(1)
            rows.commit()
            (number,) = rows.execute("SELECT count(*) FROM rows").fetchone()
            (images,) = rows.execute(f"SELECT count(*) FROM ({_KEPT})").fetchone()
        hashes[DATABASE] = sha256_file(staging / DATABASE)
        index = BackupIndex(made=now(), slipway=__version__, rows=number, images=images, files=hashes)
        index.write(staging / INDEX)
        (staging / INDEX).chmod(0o600)
    return index, copied


def restore(
    backup: Path, journal: Path, *, progress: Progress, without_damaged: bool = False
) -> tuple[BackupIndex, list[str]]:
    """Write the journal of a backup to `journal`, which must have none, nor a log of one.

    Every file is checked while it is copied, and the database takes its place last: a restore that fails or is killed
    leaves no database, and may be called again.

    Args:
        without_damaged: leave damaged and missing images out. Their rows stay, marked as those of pruned images.

    Returns:
        The content of the backup, and the SHA-256 of the images that were left out.

    Raises:
        SpecError: not a backup, or a journal is there.
        StorageError: a file of the backup is missing or damaged, or the journal cannot be written.
    """
    index, images = read_backup(backup, with_images=not without_damaged)
    left_out: list[str] = []
    with only_collector(journal, remedy="end it before you restore"):
        if (journal / DATABASE).exists():
            raise SpecError(f"{journal}: a journal is there, and nothing is written over it; move it away first")
        if logs := sorted(path.name for path in journal.glob(f"{DATABASE}-*")):
            # SQLite would write the pages of such a log over those of the restored database.
            raise SpecError(f"{journal}: {', '.join(logs)} of another journal is there; move it beside its database")
        with told(journal):
            for sha256 in images:
                source = image_path(backup, sha256)
                if without_damaged and not (_is_there(source) and sha256_file(source) == sha256):
                    left_out.append(sha256)
                else:
                    _copy(source, image_path(journal, sha256), expected=sha256, remedy=_WAYS_OUT)
                progress(1)
            for name in index.files.keys() - {DATABASE}:
                _copy(backup / name, journal / name, expected=index.files[name])
            staged = journal / f".{DATABASE}"
            _copy(backup / DATABASE, staged, expected=index.files[DATABASE])
            with closing(sqlite3.connect(staged)) as rows, in_words(staged):
                rows.executemany("UPDATE rows SET kept = 0 WHERE sha256 = ?", [(sha256,) for sha256 in left_out])
                rows.commit()
            staged.rename(journal / DATABASE)
    return index, left_out


def read_backup(backup: Path, *, with_images: bool) -> tuple[BackupIndex, list[str]]:
    """The index of a backup, and the SHA-256 of the images that its rows have.

    Args:
        with_images: whether every image has to be there.

    Raises:
        SpecError: not a backup.
        StorageError: a file or an image is missing, or another file than an image was changed; names it.
    """
    if not (backup / INDEX).is_file():
        raise SpecError(f"{backup}: not a backup, without {INDEX}; give a folder that slipway journal backup wrote")
    index = BackupIndex.read(backup / INDEX)
    for name, sha256 in index.files.items():
        if not _is_there(backup / name):
            raise StorageError(f"{backup / name}: missing; give another backup")
        if sha256_file(backup / name) != sha256:
            raise _changed(backup / name, remedy="give another backup")
    images = _images(backup, index)
    for sha256 in images if with_images else ():
        if not _is_there(image_path(backup, sha256)):
            raise StorageError(f"{image_path(backup, sha256)}: missing; {_WAYS_OUT}")
    return index, images


def _is_there(path: Path) -> bool:
    """Whether it is a file of the backup itself: a link may lead out of it."""
    return path.is_file() and not path.is_symlink()


def _images(backup: Path, index: BackupIndex) -> list[str]:
    """SHA-256 of the images that rows of a backup have.

    Raises:
        SpecError: the database is of another version.
        StorageError: it is not the database that the index describes.
    """
    path = backup / DATABASE
    with in_words(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as rows:
        (version,) = rows.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise SpecError(f"{path}: of version {version}, and this release reads {VERSION}; give another backup")
        found = [sha256 for (sha256,) in rows.execute(_KEPT)]
        (number,) = rows.execute("SELECT count(*) FROM rows").fetchone()
    if strange := [name for name in found if not re.fullmatch("[0-9a-f]{64}", str(name))]:
        raise StorageError(f"{path}: damaged: {str(strange[0])[:80]!r} is not an image's SHA-256; give another backup")
    if (number, len(found)) != (index.rows, index.images):
        said = f"{index.rows:,} rows and {index.images:,} images"
        raise StorageError(
            f"{path}: has {number:,} rows and {len(found):,} images, and {INDEX} says {said}; give another backup"
        )
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


def _snapshot(store: Store, target: Path, *, backup: Path) -> sqlite3.Connection:
    """An open copy of the database as of one moment: one file, without a write-ahead log."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    rows = sqlite3.connect(target)
    try:
        store.copy_into(rows, at=backup)
        rows.execute("PRAGMA journal_mode = DELETE")
        (said,) = rows.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise StorageError(f"{store.folder / DATABASE}: damaged: {said}; restore the last backup")
    except BaseException:
        rows.close()
        raise
    return rows


def _keep(store: Store, former: Path, staging: Path, *, sha256: str, rows: sqlite3.Connection) -> bool:
    """Put an image into the backup; returns whether it was copied. One that was pruned meanwhile is marked so."""
    new, old = image_path(staging, sha256), image_path(former, sha256)
    with suppress(OSError):  # no backup before, or a disk without hard links
        if _is_there(old) and sha256_file(old) == sha256:
            _make_private(new.parent)
            os.link(old, new)
            return False
    try:
        remedy = f"{command('slipway journal forget', store.settings_file, sha256)} removes it from the journal"
        _copy(image_path(store.folder, sha256), new, expected=sha256, remedy=remedy)
    except FileNotFoundError:
        rows.execute("UPDATE rows SET kept = 0 WHERE sha256 = ?", (sha256,))
        return False
    return True


def _copy(source: Path, target: Path, *, expected: str | None = None, remedy: str = "look at the disk") -> str:
    """Copy a file, whole or not at all, so that only its user may read it; returns its SHA-256.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: its SHA-256 is not `expected`; with the remedy.
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
                raise _changed(source, remedy=remedy)
            new.rename(target)
        finally:
            new.unlink(missing_ok=True)
    return digest.hexdigest()


def _changed(path: Path, *, remedy: str) -> StorageError:
    return StorageError(f"{path}: damaged: its SHA-256 is not the one that was recorded; {remedy}")


def _make_private(folder: Path) -> None:
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700)
