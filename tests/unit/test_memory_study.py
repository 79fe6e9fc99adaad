"""The study of memory counts what a server has reserved of shared memory, and each page once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from benchmarks.studies.memory.measure import memory_of, proportional_mib
from benchmarks.studies.memory.result import MemoryResult
from slipway.contract import GateError

ROOT = Path(__file__).parents[2]
SEGMENT = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.posix_fallocate(file, 0, 16 << 20)
mapped = mmap.mmap(file, 16 << 20)
mapped[0] = 1
"""
PARENT = f"""{SEGMENT}
import subprocess
own = bytearray(os.urandom(1 << 20)) * 32
child = subprocess.Popen([sys.executable, "-c", {SEGMENT!r} + "print(flush=True); input()", sys.argv[1]])
child.wait()
"""


@pytest.fixture
def server() -> Iterator[int]:
    """A process of 32 MiB and its child, with one segment of 16 MiB, of which each touches the first page."""
    path = Path(f"/dev/shm/slipway-test-{uuid4().hex}")
    command = [sys.executable, "-c", PARENT, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            path.unlink(missing_ok=True)
            process.communicate("\n")


def test_shared_memory_that_no_process_has_touched_counts(server: int) -> None:
    processes = [psutil.Process(server), *psutil.Process(server).children()]
    pss_mib = sum(process.memory_full_info().pss for process in processes) / 2**20
    assert 15 < proportional_mib(server) - pss_mib < 17


def test_each_page_counts_once_and_those_of_libraries_apart(server: int) -> None:
    try:
        found = memory_of(server)
    except GateError as error:
        pytest.skip(str(error))
    assert (found.processes, found.shared_mib) == (2, 16)
    assert 32 < found.own_mib < 64
    assert found.held_mib == found.own_mib + 16
    assert found.held_mib < found.total_mib < found.held_mib + 40


def test_the_document_has_the_published_ratios() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    found = MemoryResult.read(ROOT / "benchmarks/results/memory.json")
    rows = [line for line in text.partition("## Memory")[2].partition("The target")[0].splitlines() if " (0." in line]
    told = [found.ratios[side] for side in ("steps", "former")]
    figures = [("images", "total_mib"), ("images", "held_mib"), ("images", "peaks_mib")]
    figures += [("photographs", "total_mib"), ("photographs", "held_mib")]
    for row, (kind, figure) in zip(rows, figures, strict=True):
        for share in (ratio[kind][figure] for ratio in told):
            assert f"| {share.mean:.2f} ({share.least:.2f} to {share.most:.2f}) |" in row
