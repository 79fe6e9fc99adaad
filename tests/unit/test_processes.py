"""A test that fails waits for no process that it started."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.processes import running_process, wait_for_words

SLEEPS = """
import signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(("kind", "patience_s", "code"), [("", 30, -signal.SIGTERM), ("deaf", 0.1, -signal.SIGKILL)])
def test_a_block_that_fails_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, patience_s: float, code: int
) -> None:
    monkeypatch.setattr(processes, "ENDS_S", patience_s)
    log, command = tmp_path / "log", [sys.executable, "-c", SLEEPS, kind]

    def wait(process: subprocess.Popen[Any]) -> None:
        wait_for_words(process, log, "here")
        wait_for_words(process, log, "there", within_s=0)

    with (
        log.open("wb") as said,
        pytest.raises(AssertionError, match=r"it did not say 'there' within 0 s: here"),
        running_process(command, stdout=said) as process,
    ):
        wait(process)
    assert process.returncode == code


def test_words_that_do_not_come_fail_with_what_was_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ends = [sys.executable, "-c", "print('goodbye')"]
    with (
        log.open("wb") as said,
        pytest.raises(AssertionError, match=r"it ended with 0 before it said 'here': goodbye"),
        running_process(ends, stdout=said) as process,
    ):
        wait_for_words(process, log, "here")


def test_the_last_words_of_a_process_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says them and ends just after the log was read without them."""
    log, read = tmp_path / "log", Path.read_text
    ends = [sys.executable, "-c", "import sys; sys.stdin.read(); print('here')"]
    with log.open("wb") as said, running_process(ends, stdin=subprocess.PIPE, stdout=said) as process:

        def read_and_let_it_end(path: Path, **options: Any) -> str:
            text = read(path, **options)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
            return text

        monkeypatch.setattr(Path, "read_text", read_and_let_it_end)
        wait_for_words(process, log, "here")
