"""Reads a server's log: its end, or while it is written. A log that is passed on is kept small, since in a container it
is in memory."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 << 20
"""Size of the file at which it is emptied."""
PAUSE_S = 0.2
_CHUNK = 1 << 20
_END_BYTES = 1 << 20


@contextmanager
def passed_on(log: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Call `say` with every line that is appended to `log` during the block, soon after it is written.

    The server writes to a file and not to us, since it would stop if its reader did. Lines that it writes at the moment
    in which the file is emptied may be lost.
    """
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(log, say, ended), daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow(log: Path, say: Callable[[str], None], ended: threading.Event) -> None:
    begun = b""  # a line whose end is not written yet
    with log.open("rb") as file:
        last = False
        while not last:
            last = ended.wait(PAUSE_S)
            begun = _say_lines(file, begun, say)
            if file.tell() > MOST_BYTES:
                os.truncate(log, 0)  # the server appends, so it goes on at the start
                file.seek(0)
    if begun:
        say(begun.decode(errors="replace"))


def _say_lines(file: BinaryIO, begun: bytes, say: Callable[[str], None]) -> bytes:
    """Pass on the lines up to the end of the file; returns the line that has no end yet."""
    while data := file.read(_CHUNK):
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            say(line.decode(errors="replace"))
    return begun


def log_lines(log: Path) -> list[str]:
    """The end of a server's log without empty lines; empty if the file was removed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END_BYTES))
            data = file.read()
    except OSError:
        return []
    return [line for line in data.decode(errors="replace").splitlines() if line.strip()]


def first_failure(log: Path) -> str:
    """The server's message about the first failure, without its stack trace."""
    lines = log_lines(log)
    if not lines:
        return "its log is empty"
    # Errors of CUDA and NVML are harmless without a GPU.
    errors = [line for line in lines if re.match(r"E\d{4} ", line) and "CUDA" not in line and "Cuda" not in line]
    failures = [line for line in lines if re.search(r"failed to load|Invalid argument|error: ", line)]
    first = [*failures, *errors, lines[-1]][0]
    return re.sub(r"^[EIW]\d{4} .*?\] ", "", first).strip('"').partition(r"\n")[0]
