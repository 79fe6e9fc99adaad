"""SQLite's errors as sentences that say what helps."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.errors import StorageError
from slipway.system.targets import told

_NOT_OURS = "restore a copy of it, or move it away, and the collector begins a new journal"
_HELD = "another process has held it for half a minute; wait for that one or end it, and try again"
_MODES = "change its permissions and those of its folder, or give the journal another folder"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space, or give the journal another folder",
    sqlite3.SQLITE_NOTADB: _NOT_OURS,
    sqlite3.SQLITE_CORRUPT: _NOT_OURS,
    sqlite3.SQLITE_ERROR: _NOT_OURS,  # a table or column is missing
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: _MODES,
    sqlite3.SQLITE_CANTOPEN: _MODES,
    sqlite3.SQLITE_PERM: _MODES,
    sqlite3.SQLITE_IOERR: "the disk is faulty or full; see the system's log (dmesg)",
}
"""Remedies, by the number of SQLite's error."""
_OTHER = "try again; if that fails too, see the system's log (dmesg)"


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn an error of SQLite or the disk into a StorageError; a wrong call of `sqlite3` is raised as it is."""
    try:
        with told(path):
            yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and isinstance(error, sqlite3.OperationalError):
            code = sqlite3.SQLITE_CORRUPT  # Python's own error: a text that is not UTF-8
        if code is None:
            raise
        remedy = _REMEDIES.get(code & 0xFF, _OTHER)  # without the detail of extended codes
        raise StorageError(f"{path}: {error}; {remedy}") from None
