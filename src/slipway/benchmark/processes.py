"""Reads CPU time and memory of local server processes, and sets which processes have priority."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import ServingError, requiring

with requiring("psutil", extra="bench"):
    import psutil


@dataclass(frozen=True)
class Snapshot:
    """One process and all its descendants: tritonserver and its stubs."""

    at_s: float
    cpu_s: dict[int, float]
    peak_rss_mib: float
    """Sum of the processes' own peaks since they started: an upper bound of their joint peak."""


def snapshot(pid: int) -> Snapshot:
    """Raises ServingError where the process does not exist or may not be read."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error as error:
        raise ServingError(f"cannot watch process {pid}: {error}; give the pid of tritonserver") from None
    cpu_s, peak_rss_mib = {}, 0.0
    for process in family:
        with suppress(psutil.NoSuchProcess):  # a child may end meanwhile
            cpu_s[process.pid] = sum(process.cpu_times()[:2])
            peak_rss_mib += peak_mib_of(process.pid)
    return Snapshot(time.monotonic(), cpu_s, peak_rss_mib)


def cores_used(before: Snapshot, after: Snapshot) -> float:
    """Return CPU seconds per second between two snapshots, over the processes alive at both."""
    used_s = sum(after.cpu_s[pid] - cpu_s for pid, cpu_s in before.cpu_s.items() if pid in after.cpu_s)
    return used_s / (after.at_s - before.at_s)


def give_way(pid: int, *, nice: int = 10) -> None:
    """Lower the priority of the session of `pid`, so that load on the same cores leaves on time.

    With autogroups, Linux first divides the processor between sessions; `nice` counts within one.
    """
    group = Path(f"/proc/{pid}/autogroup")
    if group.is_file():
        group.write_text(str(nice))


def go_first() -> bool:
    """Raise the priority of this process's session, if the system has autogroups and allows it (to root).

    Returns:
        Whether the priority was raised.
    """
    try:
        Path("/proc/self/autogroup").write_text("-10")
    except OSError:
        return False
    return True


def peak_mib_of(pid: int) -> float:
    """Return the peak resident memory of one process in MiB, from the kernel's record: sampling would miss peaks.

    Raises psutil.NoSuchProcess. (A child's `ru_maxrss` would start at its parent's.)
    """
    try:
        fields = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    peak_kib = next((line.split()[1] for line in fields if line.startswith("VmHWM:")), "0")
    return int(peak_kib) / 1024
