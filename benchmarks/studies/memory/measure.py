"""Measures the memory of a server and its stubs: each page once, however many processes map it, and all shared
memory."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.studies.memory.result import Memory
from slipway.benchmark.processes import snapshot
from slipway.contract import GateError

SHARED_MEMORY = "/dev/shm/"
PAGE = os.sysconf("SC_PAGE_SIZE")
Entries = npt.NDArray[np.uint64]
"""The kernel's entry for each page of a region: bit 63 is set if the page is present, bit 61 if it belongs to a file or
to shared memory, and the lowest 55 bits are the number of its frame in the machine's memory."""


def memory_of(pid: int) -> Memory:
    """Measure the memory of process `pid` and its descendants now.

    Raises GateError: this process may not read the numbers of their frames.
    """
    processes = family(pid)
    regions = [region for process in processes for region in regions_of(process.pid)]
    segments = {path for path, _ in regions if path.startswith(SHARED_MEMORY)}
    own = frames(entries[~_bit(entries, 61)] for _, entries in regions)
    libraries = frames(entries[_bit(entries, 61)] for path, entries in regions if path not in segments)
    if own <= 1:  # the number of every frame is 0 for a process without CAP_SYS_ADMIN
        raise GateError(f"the frames of process {pid} cannot be read: run this study as root")
    shared = sum(512 * os.stat(path).st_blocks for path in segments)
    return Memory(
        own_mib=own * PAGE / 2**20,
        shared_mib=shared / 2**20,
        held_mib=(own * PAGE + shared) / 2**20,
        total_mib=((own + libraries) * PAGE + shared) / 2**20,
        peaks_mib=snapshot(pid).peak_rss_mib,
        processes=len(processes),
    )


def proportional_mib(pid: int) -> float:
    """Measure the memory of the server `pid` and its stubs: PSS, which divides a page by the processes that map it, and
    all of their shared memory, of which PSS leaves out untouched pages."""
    regions = [region for process in family(pid) for region in process.memory_maps()]
    segments = {region.path for region in regions if region.path.startswith(SHARED_MEMORY)}
    proportional = sum(region.pss for region in regions if region.path not in segments)
    return float(proportional + sum(512 * os.stat(path).st_blocks for path in segments)) / 2**20


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def regions_of(pid: int) -> Iterator[tuple[str, Entries]]:
    """Yield each region of a process: the path of its file, empty if it has none, and its pages that are present."""
    process = Path(f"/proc/{pid}")
    lines = (process / "maps").read_text().splitlines()
    with (process / "pagemap").open("rb", buffering=0) as pages:
        for line in lines:
            addresses, _, _, _, _, *path = line.split(maxsplit=5)
            if path and path[0].startswith("[v"):  # a region of the kernel itself
                continue
            begin, end = (int(address, 16) // PAGE for address in addresses.split("-"))
            pages.seek(8 * begin)
            entries = np.frombuffer(pages.read(8 * (end - begin)), np.uint64)
            yield "".join(path), entries[_bit(entries, 63)]


def frames(parts: Iterator[Entries]) -> int:
    """Count the frames, each once."""
    return int(np.unique(np.concatenate(list(parts)) & np.uint64((1 << 55) - 1)).size)


def _bit(entries: Entries, number: int) -> npt.NDArray[np.bool_]:
    return np.asarray(entries >> np.uint64(number) & np.uint64(1), np.bool_)
