"""Standard output and error of a process that goes on working when nobody reads them any more."""

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO


class Lossy(io.RawIOBase):
    """A file descriptor. What it does not take, for its reader is gone or its disk is full, is lost."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.problem = ""
        """Why the last write was lost; empty when it was not."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.problem = ""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody made a pipe of ours non-blocking
            select.select([], [self._descriptor], [])
            return 0
        except OSError as error:
            self.problem = os.strerror(error.errno or 0)
            return len(data)


def keep_going() -> Lossy:
    """Let no write to standard output or error raise from here on; returns what is below `sys.stdout`.

    A descriptor that the process was started without is opened on /dev/null, or the next file opened would be it.
    Streams that somebody has replaced, as pytest does, are left alone.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    output, error = Lossy(1), Lossy(2)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(output, like=sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(error, like=sys.stderr)
    return output


def _text(raw: Lossy, *, like: Any) -> TextIO:
    if like is None:  # the process was started with it closed
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    with suppress(OSError):
        like.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding,
        errors="backslashreplace",  # a name that the terminal cannot show
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
