"""Ends every command the same way: a message and exit code 1 for a SlipwayError, 130 for Ctrl-C, a traceback for a bug.

SIGTERM and SIGHUP act as Ctrl-C, with exit codes 143 and 129. The reader of a pipe or log may go away at any time.
"""

import argparse
import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from slipway.errors import SlipwayError
from slipway.system.home import ensure_home
from slipway.system.streams import keep_going
from slipway.system.targets import storage_error
from slipway.system.text import shown

Completed: TypeAlias = subprocess.CompletedProcess[str]
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
_NO_TEMPORARY_FOLDER = "No usable temporary directory found"
_TELEMETRY = "openvino_telemetry"
"""Module that would report each import of openvino to a web service, and complain about a read-only home."""
INSTALL_ALL = "pip install 'slipway[train,build,serve,client,bench]' (in a clone: make setup)"
"""Command that installs the libraries of every verb."""
_ENDS_BY_ITSELF_S = 3
"""Seconds for a child that the terminal's Ctrl-C reached too; a second signal would cut its clean-up short."""


def to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None = None,
    *,
    notice: Callable[[str], None] = to_stderr,
) -> None:
    """Parse `words` (None: the command line), call `main`, and exit with what it returns (None is 0).

    Args:
        notice: called with a message about the environment, if there is one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see end_at_ctrl_c
        signal.signal(signal.SIGINT, signal.default_int_handler)
    output = keep_going()
    # Threads that wait by spinning take the core from the one that they wait for, where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # its import fails now, and openvino does without
    arguments = parser.parse_args(words)
    with as_ctrl_c() as received:
        try:
            if said := ensure_home():
                notice(said)
            code = main(arguments)
            sys.stdout.flush()
        except SlipwayError as error:
            sys.exit("\n".join(map(shown, f"{parser.prog}: {error}".split("\n"))))
        except ModuleNotFoundError as error:  # of an extra that is not installed
            if str(error.name).partition(".")[0] == __package__.partition(".")[0]:
                raise
            sys.exit(f"{parser.prog}: {error.name} is not installed: {INSTALL_ALL}")
        except OSError as error:
            if str(error.strerror).startswith(_NO_TEMPORARY_FOLDER):
                sys.exit(f"{parser.prog}: no temporary folder can be written; set TMPDIR to one that can")
            problem = storage_error(error)  # a full disk, a folder without write permission, and the like
            if problem is None:
                raise
            sys.exit(f"{parser.prog}: {problem}")
        except KeyboardInterrupt as error:
            to_stderr(f"\n{parser.prog}: interrupted; {str(error) or 'nothing half-written is left'}")
            sys.exit(128 + next(iter(received), signal.SIGINT))
    if output.problem and getattr(arguments, "json", False):  # the last line is the result
        sys.exit(f"{parser.prog}: done, but its JSON line could not be written: {output.problem}")
    sys.exit(code)


def told_to_end() -> threading.Event:
    """The event that Ctrl-C, SIGTERM and SIGHUP set from now on; ignored signals (nohup, or a shell's background) stay
    ignored."""
    ended = threading.Event()
    for ending in (signal.SIGINT, *_ENDINGS):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, lambda *_: ended.set())
    return ended


def end_at_ctrl_c() -> None:
    """Let Ctrl-C end the process until `run`: a library that is being imported may drop a KeyboardInterrupt, or print a
    page about it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt for the first SIGTERM or SIGHUP, and yield the list that gets its number.

    Ignored signals (nohup) stay ignored. Forked children get the default action back, since a signal to them is meant
    for them only. This process gets it back after the block, and for Ctrl-C at exit: an exception would have its
    traceback printed by the libraries that unload themselves then.
    """
    received: list[int] = []

    def end(number: int, _: object) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    def default() -> None:
        for ending in _ENDINGS:
            if signal.getsignal(ending) is end:
                signal.signal(ending, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)

    for ending in _ENDINGS:
        if signal.getsignal(ending) is signal.SIG_DFL:
            signal.signal(ending, end)
    os.register_at_fork(  # a signal that reaches a child before its default is back must wait
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS),
        after_in_child=default,
    )
    try:
        yield received
    finally:
        default()
        atexit.register(end_at_ctrl_c)  # called first: the last to be registered


def output_of(command: Sequence[str | Path], *, timeout_s: float | None = None, **options: Any) -> Completed:
    """Run another command, with the options of `subprocess.run`, and return what it printed, whatever its exit code."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False, **options
    )


@contextmanager
def child(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run another command for the block, with the options of Popen. If this process is ended, so is the child, with
    time to clean up."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            try:
                process.wait(_ENDS_BY_ITSELF_S)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise
