"""The journal on disk: SQLite beside content-named images, for its user alone."""

import errno
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from slipway.errors import DataError, SpecError, StorageError
from slipway.operations.journal.folders import only_process, private_folder
from slipway.operations.journal.rows import Row
from slipway.operations.journal.sqlite_errors import in_words
from slipway.system.targets import told
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.operations.gateway.settings import GatewaySettings

DATABASE, IMAGES, LOCK = "journal.sqlite", "images", "collector.lock"
VERSION = 2
DAY_S = 86_400.0
BUSY_S = 30.0
_PAUSE_S = 0.01
Counts = Mapping[tuple[str, tuple[str, ...]], int]
"""Counters by name and values of their labels."""
_SEPARATOR = "\x1f"
_LATER = (
    "CREATE INDEX IF NOT EXISTS rows_bundle ON rows (classifier, bundle)",
    "CREATE INDEX IF NOT EXISTS considered_selection ON considered (selection)",
    "CREATE INDEX IF NOT EXISTS considered_chosen ON considered (selection, row) WHERE chosen = 1",
    "CREATE INDEX IF NOT EXISTS rows_kept ON rows (time_s) WHERE kept = 1",
    "CREATE TABLE IF NOT EXISTS pruned (at_s REAL NOT NULL)",
    "INSERT INTO pruned SELECT CAST(coalesce((SELECT time_s FROM rows ORDER BY id DESC LIMIT 1), strftime('%s', 'now'))"
    " AS REAL) WHERE NOT EXISTS (SELECT 1 FROM pruned)",
)
"""Parts that a journal may lack if an earlier release made it: indexes, and the time of the last pruning."""
_COLUMNS = (
    *("request", "image", "classifier", "model", "client_id", "time_s", "sampled_with", "arm", "bundle"),
    *("replayed_bundle", "status", "label", "class_id", "score", "probability", "embedding", "brightness", "width"),
    *("height", "bytes", "format", "sha256", "kept", "parity"),
)


class Store:
    """An open journal. One thread uses it; several processes may have it open.

    Every method raises StorageError if the disk is full, or the database is damaged or locked for long; nothing of a
    method's changes is then there.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, *, settings_file: Path) -> None:
        self.folder, self._connection = folder, connection
        self.settings_file = settings_file
        """The gateway's settings, for the commands that a person is told."""

    @classmethod
    def of(cls, settings: "GatewaySettings", *, make: bool) -> AbstractContextManager[Self]:
        """Open the journal of a gateway; raises as `open`."""
        return cls.open(settings.journal, make=make, settings_file=settings.file)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, make: bool, settings_file: Path) -> Iterator[Self]:
        """Open the journal in `folder` for the duration of the block.

        Raises:
            SpecError: it is not there, and is not to be made; or another release wrote it.
        """
        path = folder / DATABASE
        if not make and not path.is_file():
            raise SpecError(f"{folder}: no journal; {command('slipway journal run', settings_file)} makes one")
        private_folder(folder, what="observe.journal", marker=DATABASE)
        with told(folder):
            (folder / IMAGES).mkdir(exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        with in_words(path):
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            with in_words(path):
                _prepare(path, connection)
            yield cls(folder, connection, settings_file=settings_file)
        finally:
            connection.close()

    # What the collector does.

    def is_done(self, request: str) -> bool:
        """Whether the tap file of a request is taken in."""
        return bool(self._query("SELECT 1 FROM done WHERE request = ?", (request,)))

    def add(
        self,
        request: str,
        rows: Sequence[Row],
        images: Mapping[str, bytes],
        *,
        counts: Callable[[Sequence[Row]], Counts],
        now_s: float,
    ) -> list[Row]:
        """Take in a request with its rows and images, in one transaction; returns the rows that are new.

        A request that was taken in before, or was forgotten, changes nothing.

        Args:
            images: content by SHA-256.
            counts: the counters to raise, from the rows that are new.
        """
        with self._transaction():
            if self.is_done(request):
                return []
            places = {place for (place,) in self._query("SELECT image FROM forgotten WHERE request = ?", (request,))}
            new = [row for row in rows if row.image not in places]
            for sha256 in {row.sha256 for row in new if row.sha256 is not None}:
                self._keep(sha256, images[sha256])
            marks = ", ".join("?" * len(_COLUMNS))
            self._connection.executemany(
                f"INSERT INTO rows ({', '.join(_COLUMNS)}) VALUES ({marks})", [_plain(row) for row in new]
            )
            for (name, labels), value in counts(new).items():
                self._connection.execute(
                    "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                    (name, _SEPARATOR.join(labels), value),
                )
            self._connection.execute("DELETE FROM forgotten WHERE request = ?", (request,))
            self._connection.execute("INSERT INTO done VALUES (?, ?)", (request, now_s))
        return new

    def counters(self) -> Counts:
        """Every counter since the journal was made."""
        found = self._query("SELECT name, labels, value FROM counters")
        return {(name, tuple(labels.split(_SEPARATOR)) if labels else ()): value for name, labels, value in found}

    # Forgetting.

    def forget(self, given: str, *, spooled: Sequence[tuple[str, int]] = ()) -> dict[str, int]:
        """Remove the rows that `given` names, and their images where no other row has them.

        Args:
            given: number of a row, SHA-256 of an image, or id of a request, the gateway's or the client's.
            spooled: images of the spool, by request and place, that it names too; they are not taken in.
        """
        with self._transaction():
            found = self._query(
                "SELECT DISTINCT request, image FROM rows WHERE request = :given OR sha256 = :given OR "
                "(client_id = :given AND client_id != '') OR id = :number",
                {"given": given, "number": int(given) if given.isdecimal() and len(given) < 16 else -1},
            )
            hashes: set[str] = set()
            rows = 0
            for request, image in found:
                key = (request, image)
                where = "FROM rows WHERE request = ? AND image = ?"
                hashes |= {one for (one,) in self._query(f"SELECT sha256 {where}", key) if one}
                rows += self._connection.execute(f"DELETE {where}", key).rowcount
            for request, image in spooled:
                if not self.is_done(request):
                    self._connection.execute("INSERT OR IGNORE INTO forgotten VALUES (?, ?)", (request, image))
        images = 0
        with self._transaction():
            for sha256 in hashes:
                if not self._is_kept(sha256):
                    with suppress(FileNotFoundError, DataError):
                        image_path(self.folder, sha256).unlink()
                        images += 1
        self._query("PRAGMA wal_checkpoint(TRUNCATE)")  # the write-ahead log holds old pages
        return {"rows": rows, "images": images, "spooled": len(spooled)}

    def _is_kept(self, sha256: str) -> bool:
        return bool(self._query("SELECT 1 FROM rows WHERE sha256 = ? AND kept = 1 LIMIT 1", (sha256,)))

    # Reading.

    def query(self, text: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a SELECT."""
        return self._query(text, values)

    def copy_into(self, target: sqlite3.Connection, *, at: Path) -> None:
        """Copy the database as of one moment, by SQLite's backup; others may write meanwhile.

        Args:
            at: the place of the copy, for messages.

        Raises:
            StorageError: the journal is damaged, or the copy cannot be written.
        """
        with in_words(self.folder / DATABASE):
            try:
                self._connection.backup(target)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), at) from None
                raise StorageError(  # SQLite does not say which of the two it means
                    f"{self.folder / DATABASE} cannot be copied to {at}: {error}; check the permissions and the disks "
                    "of both, and the system's log (dmesg)"
                ) from None

    # Selections, labels and comparisons.

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Every `write` of the block or none of them; nobody else writes meanwhile."""
        with self._transaction():
            yield

    def write(self, text: str, values: Iterable[Sequence[object] | Mapping[str, object]]) -> int:
        """Run an INSERT, UPDATE or DELETE for each of `values`, all of them or none; returns how many rows it changed.

        Values of rows that were removed meanwhile change nothing if the statement asks for the row.
        """
        with self._transaction():
            return self._connection.executemany(text, values).rowcount

    # How.

    def _query(self, text: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        with in_words(self.folder / DATABASE):
            return self._connection.execute(text, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing of it; others write before or after it. One inside another is part of it."""
        if self._connection.in_transaction:
            yield
            return
        with in_words(self.folder / DATABASE):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _keep(self, sha256: str, content: bytes) -> None:
        """Write an image, whole or not at all, and on the disk before the row is."""
        path = image_path(self.folder, sha256)
        if read_image(self.folder, sha256) is not None:
            return
        path.parent.mkdir(exist_ok=True, mode=0o700)
        new = path.with_name(f".{sha256}.{os.getpid()}")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")  # labels go with their row
    connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            schema = resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
            lines = (line.partition("--")[0] for line in schema.splitlines())
            for statement in "\n".join(lines).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise SpecError(f"{path}: of version {version}, and this release reads {VERSION}; give another folder")
        for statement in _LATER:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the journal's mode to WAL. SQLite does not wait by itself where two open a new journal at once."""
    over_s = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > over_s:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def is_sha256(value: object) -> bool:
    """Whether it may be the name of an image."""
    return isinstance(value, str) and value.isascii() and value.isalnum()


def image_path(folder: Path, sha256: str) -> Path:
    """`images/ab/<sha256>`.

    Raises:
        DataError: the hash is none, since somebody changed the journal: as a path it could lead anywhere.
    """
    if not is_sha256(sha256):
        raise DataError(
            f"{folder}: an image is called {sha256!r}, and not by a SHA-256; somebody changed the journal, or it is "
            "damaged: slipway journal rows names the row"
        )
    return folder / IMAGES / sha256[:2] / sha256


def read_image(folder: Path, sha256: str) -> bytes | None:
    """The bytes of an image in the journal at `folder`; None if the image was removed or is damaged."""
    path = image_path(folder, sha256)
    with told(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
    return content if sha256_of(content) == sha256 else None


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def only_collector(folder: Path, *, remedy: str = "one is enough") -> Iterator[None]:
    """Raises SpecError, with `remedy`, if another collector has this journal."""
    private_folder(folder, what="observe.journal", marker=DATABASE)
    with only_process(folder / LOCK, f"{folder}: another slipway journal run has this journal; " + remedy):
        yield


def _plain(row: Row) -> tuple[object, ...]:
    """The row's columns in the order of `_COLUMNS`."""
    values: dict[str, object] = {**vars(row), **vars(row.picture), "kept": int(row.sha256 is not None)}
    for name in ("probability", "embedding"):
        array = getattr(row, name)
        values[name] = None if array is None else array.astype("<f4").tobytes()
    return tuple(values[name] for name in _COLUMNS)
