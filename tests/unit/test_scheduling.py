"""A process that is started with short time slices has them, and its starter keeps its own."""

import subprocess
import sys

import pytest

from slipway.system.scheduling import SHORT_US, short_slices, slice_us

OWN = """
import threading
from slipway.system.scheduling import slice_us
threading.Thread(target=lambda: print(slice_us(0))).start()
"""


def test_what_is_started_within_the_block_has_short_slices_and_its_threads_too() -> None:
    before = slice_us(0)
    with short_slices() as given:
        if not given:
            pytest.skip("the kernel gives no slices to processes: Linux before 6.12")
        said = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, check=True).stdout
    assert int(said) == SHORT_US
    assert slice_us(0) == before != SHORT_US


def test_a_process_that_is_gone_has_no_slice() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert slice_us(process.pid) is None


def test_on_another_machine_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with short_slices() as given:
        assert not given
    assert slice_us(0) is None
