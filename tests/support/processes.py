"""Processes of a test that end with their block: a failed test waits for none of them."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ENDS_S, SAYS_S = 10.0, 60.0
"""Seconds that a process has to end when it is asked to, and to say what a test waits for."""


@contextmanager
def running_process(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command for the block, with the options of Popen; what then still runs is ended, by SIGKILL at last.

    Popen alone waits at the end of its block for a process that nobody has asked to end, without a limit.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDS_S)
            process.kill()


def wait_for_words(process: subprocess.Popen[Any], log: Path, words: str, *, within_s: float = SAYS_S) -> None:
    """Wait until `process` has written the words to `log`; if it ends or takes too long, fail with the log's end."""
    deadline = time.monotonic() + within_s
    while True:
        code = process.poll()  # before the log is read: the last words of one that has ended are there by then
        said = log.read_text(errors="replace")
        if words in said:
            return
        assert code is None, f"it ended with {code} before it said {words!r}: {said[-4000:]}"
        assert time.monotonic() < deadline, f"it did not say {words!r} within {within_s:.0f} s: {said[-4000:]}"
        time.sleep(0.05)
