"""Keeps a process working when the readers of its standard output and error go away."""

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO


class Lossy(io.RawIOBase):
    """A file descriptor whose writes never fail: data is lost if the reader is gone or the disk is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.problem = ""
        """The reason why the last write was lost; empty if it was not."""

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
        except BlockingIOError:  # another process made our pipe non-blocking
            select.select([], [self._descriptor], [])
            return 0
        except OSError as error:
            self.problem = os.strerror(error.errno or 0)
            return len(data)


def keep_going() -> Lossy:
    """Make writes to standard output and error never raise; returns the raw stream of `sys.stdout`.

    Descriptors that the process was started without are opened on /dev/null; otherwise the next opened file would get
    their number. Streams that were replaced, as pytest does, are left alone.
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
        line_buffering=like.line_buffering or like.write_through,  # PYTHONUNBUFFERED
    )
