"""The spool: a folder of tap files, which Envoy writes and the collector empties. Its size has a bound."""

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway.operations.journal.settings import TAP_PREFIX, TAP_SUFFIX

DROPPED = "dropped.json"
"""File beside the spool with the number of files that the bound has removed."""
MOST_FILES = 20_000
_NAME = re.compile(rf"{TAP_PREFIX}[0-9]{{1,20}}{re.escape(TAP_SUFFIX)}")
"""Names that Envoy draws. Other files are nobody's requests, and a name may hold what no database takes."""
QUIET_S = 5.0
"""Seconds without a change after which a file that is not whole is given up."""


@dataclass(frozen=True)
class TapFile:
    """A file of the spool."""

    path: Path
    size: int
    modified_ns: int

    @property
    def request(self) -> str:
        """The id that Envoy drew for the request."""
        return self.path.name.removeprefix(TAP_PREFIX).removesuffix(TAP_SUFFIX)


def tap_files(folder: Path) -> list[TapFile]:
    """The files of a spool, oldest first; none if the folder is gone. Links and other names are passed over."""
    found = [TapFile(Path(path), status.st_size, status.st_mtime_ns) for path, status in _looked_at(folder)]
    return sorted(found, key=lambda file: (file.modified_ns, file.path.name))


def _looked_at(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not _NAME.fullmatch(entry.name):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield entry.path, status


class Bound:
    """Keeps a spool within its size while nobody empties it. The process that runs Envoy holds it.

    What was tapped last goes: the collector is at work on what was tapped first.
    """

    def __init__(self, folder: Path, *, counted_in: Path) -> None:
        self.folder = folder
        self.problem = ""
        """Reason why the number cannot be written; it is written as soon as that is possible."""
        self._counted_in, self._unwritten = counted_in, 0

    def hold(self, *, limit_bytes: int) -> int:
        """Remove what is over the bound; returns the number of files. A newer file that still fits stays.

        Raises:
            OSError: a file cannot be removed.
        """
        try:
            return self._hold(limit_bytes)
        finally:
            self._count()

    def _hold(self, limit_bytes: int) -> int:
        sizes = [status.st_size for _, status in _looked_at(self.folder)]
        if sum(sizes) <= limit_bytes and len(sizes) <= MOST_FILES:
            return 0  # a look a second or more, nearly all of which end here
        total, kept, dropped = 0, 0, 0
        for file in tap_files(self.folder):
            if total + file.size > limit_bytes or kept >= MOST_FILES:
                file.path.unlink(missing_ok=True)
                dropped += 1
                self._unwritten += 1
            else:
                total, kept = total + file.size, kept + 1
        return dropped

    def _count(self) -> None:
        """Add the files that are not counted yet to `dropped.json`."""
        self.problem = ""
        if not self._unwritten:
            return
        new = self._counted_in.with_suffix(".new")
        try:
            new.write_text(json.dumps({"dropped": read_dropped(self._counted_in) + self._unwritten}), encoding="utf-8")
            new.replace(self._counted_in)
            self._unwritten = 0
        except OSError as error:
            self.problem = f"{self._counted_in}: {error.strerror}"


def read_dropped(path: Path) -> int:
    """The number in `dropped.json`; 0 if it is missing or damaged."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["dropped"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return 0


class UnfinishedFiles:
    """Remembers files that were not whole, by the collector's monotonic clock: the machine's may jump."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, int, float]] = {}

    def is_given_up(self, file: TapFile) -> bool:
        """Whether a file that is not whole has not changed for QUIET_S."""
        now = time.monotonic()
        size, modified_ns, since = self._seen.get(file.path, (-1, -1, now))
        if (size, modified_ns) != (file.size, file.modified_ns):
            since = now
        self._seen[file.path] = (file.size, file.modified_ns, since)
        return now - since >= QUIET_S

    def forget_others(self, files: Iterator[Path]) -> None:
        there = set(files)
        self._seen = {path: seen for path, seen in self._seen.items() if path in there}
