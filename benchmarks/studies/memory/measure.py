"""Memory of a server and its stubs, the shared memory that it has reserved included."""

import os
from typing import Self

import psutil

from slipway.benchmark.processes import snapshot
from slipway.contract.evidence.studies import Part

SHARED_MEMORY = "/dev/shm/"


class Memory(Part):
    """Memory of a process and its descendants, in MiB."""

    proportional_mib: float
    """Sum of PSS: a page that several processes share counts once."""
    shared_mib: float
    """Size of the segments in `/dev/shm` that one of the processes has mapped. Triton allocates all of a segment at
    once, and a container's limit counts it."""
    total_mib: float
    """Sum of PSS and of the pages of those segments that no process has touched yet, which PSS leaves out."""
    peaks_mib: float
    """Sum of the processes' own peaks, which counts a shared page in each of them."""
    processes: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The memory of process `pid` and its descendants now."""
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
        regions = [region for process in family for region in process.memory_maps()]
        segments = {region.path for region in regions if region.path.startswith(SHARED_MEMORY)}
        proportional = sum(region.pss for region in regions)
        touched = sum(region.pss for region in regions if region.path in segments)
        shared = sum(512 * os.stat(path).st_blocks for path in segments)
        return cls(
            proportional_mib=proportional / 2**20,
            shared_mib=shared / 2**20,
            total_mib=(proportional + shared - touched) / 2**20,
            peaks_mib=snapshot(pid).peak_rss_mib,
            processes=len(family),
        )
