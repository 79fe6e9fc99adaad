"""What a compiler does to its process stays there."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slipway.contract import CompileError
from slipway.engines.child import run_in_child


def double(number: int) -> tuple[int, int]:
    return os.getpid(), 2 * number


def refuse(reason: str) -> None:
    raise CompileError(reason)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def wait(seconds: int) -> None:
    time.sleep(seconds)


def leave() -> None:
    os._exit(3)


HELD: list[object] = []


def hold() -> None:
    """A semaphore that is given back at exit, as the locks of progress bars are."""
    HELD.append(multiprocessing.get_context("spawn").Lock())


def test_a_process_that_has_answered_gives_back_its_semaphores() -> None:
    code = "import tests.stages.test_child as test; test.run_in_child(test.hold, what='hold')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_answer_comes_from_another_process() -> None:
    child, answer = run_in_child(double, what="double", number=21)
    assert answer == 42
    assert child != os.getpid()


def test_an_error_for_the_user_arrives_as_it_was() -> None:
    with pytest.raises(CompileError, match=r"^no such layer$"):
        run_in_child(refuse, what="refuse", reason="no such layer")


def test_a_crash_is_an_error_that_names_the_work_and_the_signal() -> None:
    with pytest.raises(CompileError, match=r"^model\.onnx: .* ended without an answer, by SIGSEGV"):
        run_in_child(crash, what="model.onnx")
    with pytest.raises(CompileError, match="with exit code 3"):
        run_in_child(leave, what="model.onnx")


def interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_child(wait, what="sleep", seconds=60)
    assert multiprocessing.active_children() == []


def test_ctrl_c_ends_the_work_at_once() -> None:
    process = multiprocessing.get_context("spawn").Process(target=interrupted)  # the signal is for it alone
    process.start()
    process.join(50)
    assert process.exitcode == 0


def handler() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_that_is_ignored_stays_so_in_the_process() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_in_child(handler, what="signal")
    finally:
        signal.signal(signal.SIGINT, before)
