"""Writes lines to a descriptor whose reader may stop or go away, without ever blocking the caller."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

_WAITING = 1000
"""Largest number of lines that wait for a reader; more are lost."""
_LAST_WORDS_S = 1.0


class Messages:
    """A thread that writes lines in order. Lines without a reader are lost and counted.

    Args:
        lost: called with the number of lost lines before the next line is written; returns a line that reports them.
    """

    def __init__(self, descriptor: int, *, lost: Callable[[int], str] = lambda _: "") -> None:
        self._descriptor, self._report = descriptor, lost
        self.lost = 0
        """Number of lines that could not be written."""
        self._reported = 0
        self._lines: SimpleQueue[str | None] = SimpleQueue()  # a signal's handler may put into this kind at any moment
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Queue a line; returns at once."""
        if self._lines.qsize() < _WAITING:
            self._lines.put(line)
        else:
            self.lost += 1

    def close(self) -> None:
        """Write the waiting lines, if they are read soon."""
        self._lines.put(None)
        self._thread.join(_LAST_WORDS_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            missing = self.lost - self._reported
            try:
                if missing and (said := self._report(missing)):
                    self._write_line(said)
                self._reported += missing
                self._write_line(line)
            except OSError:
                self.lost += 1

    def _write_line(self, line: str) -> None:
        """Write to the descriptor itself: a thread that hangs in a Python stream would block the end of the process."""
        data = f"{line}\n".encode(errors="backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]
