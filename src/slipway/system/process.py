"""How every script ends: a message and exit code 1 for a SlipwayError, 130 for Ctrl-C; a bug keeps its traceback.

SIGTERM and SIGHUP end it as Ctrl-C does, with 143 and 129. What only reads along, a pipe or a log, may go at any time.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError
from slipway.system.home import ensure_home
from slipway.system.streams import keep_going
from slipway.system.targets import storage_error
from slipway.system.text import shown

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
_NO_TEMPORARY_FOLDER = "No usable temporary directory found"
_ENDS_BY_ITSELF_S = 3
"""For a process that the terminal's Ctrl-C reached too; a second signal would cut its cleaning up short."""


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None = None,
    *,
    notice: Callable[[str], None] = _to_stderr,
) -> None:
    """Parse `words` (None: the command line), call `main`, and exit with what it returns (None is 0).

    Args:
        notice: told what the user should know of the environment.
    """
    output = keep_going()
    arguments = parser.parse_args(words)
    with as_ctrl_c() as received:
        try:
            if said := ensure_home():
                notice(said)
            code = main(arguments)
            sys.stdout.flush()
        except SlipwayError as error:
            sys.exit("\n".join(map(shown, f"{parser.prog}: {error}".split("\n"))))
        except OSError as error:
            if str(error.strerror).startswith(_NO_TEMPORARY_FOLDER):
                sys.exit(f"{parser.prog}: no temporary folder can be written; set TMPDIR to one that can")
            told = storage_error(error)  # a full disk, a folder that may not be written, and the like
            if told is None:
                raise
            sys.exit(f"{parser.prog}: {told}")
        except KeyboardInterrupt as error:
            _to_stderr(f"\n{parser.prog}: interrupted; {str(error) or 'nothing half-written is left'}")
            sys.exit(128 + next(iter(received), signal.SIGINT))
    if output.problem and getattr(arguments, "json", False):  # the last line is the result
        sys.exit(f"{parser.prog}: done, but its JSON line could not be written: {output.problem}")
    sys.exit(code)


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt for the first SIGTERM or SIGHUP, and yield where its number will be.

    One that is ignored (nohup) stays so. Forked children get the default back: whoever ends them means them alone.
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
    os.register_at_fork(  # a signal that reaches a child before its default is back would be lost: it waits
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS),
        after_in_child=default,
    )
    yield received


@contextmanager
def child(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run another script for the block, with the options of Popen; what ends us ends it, with time to clean up."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            try:
                process.wait(_ENDS_BY_ITSELF_S)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise
