"""The server's processes, when they run on this machine: their CPU time and memory, and who goes first."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import MissingDependencyError, ServingError

try:
    import psutil
except ImportError:
    raise MissingDependencyError("psutil", extra="bench") from None


@dataclass(frozen=True)
class Snapshot:
    """One process and all below it: tritonserver and its stubs."""

    at_s: float
    cpu_s: dict[int, float]
    peak_rss_mib: float
    """The sum of each process's own peak since it started: at least what they ever held together."""


def snapshot(pid: int) -> Snapshot:
    """Raises ServingError when there is no such process."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error as error:
        raise ServingError(f"process {pid} cannot be watched: {error}; give the pid of tritonserver") from None
    cpu_s, peak_rss_mib = {}, 0.0
    for process in family:
        with suppress(psutil.NoSuchProcess):  # a child may end meanwhile
            cpu_s[process.pid] = sum(process.cpu_times()[:2])
            peak_rss_mib += peak_mib_of(process.pid)
    return Snapshot(time.monotonic(), cpu_s, peak_rss_mib)


def cores_used(before: Snapshot, after: Snapshot) -> float:
    """CPU seconds per second between the two, of the processes alive at both."""
    used_s = sum(after.cpu_s[pid] - cpu_s for pid, cpu_s in before.cpu_s.items() if pid in after.cpu_s)
    return used_s / (after.at_s - before.at_s)


def give_way(pid: int, *, nice: int = 10) -> None:
    """Let others go before the session of `pid`: a load that shares the server's cores is to be on time.

    Linux shares the processor out between sessions first, where it has autogroups; `nice` counts within one.
    """
    group = Path(f"/proc/{pid}/autogroup")
    if group.is_file():
        group.write_text(str(nice))


def go_first() -> bool:
    """Let this process's session go before others, where the system has autogroups and allows it (to root).

    Returns:
        Whether it does.
    """
    try:
        Path("/proc/self/autogroup").write_text("-10")
    except OSError:
        return False
    return True


def peak_mib_of(pid: int) -> float:
    """The most that one process has had resident, by the kernel's own record: sampling would miss peaks.

    Raises psutil.NoSuchProcess. (A child's `ru_maxrss` would begin with that of the process that started it.)
    """
    try:
        fields = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    peak_kib = next((line.split()[1] for line in fields if line.startswith("VmHWM:")), "0")
    return int(peak_kib) / 1024
