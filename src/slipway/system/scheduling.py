"""Time slices of processes: with a short one a process that works for moments runs at once beside one that computes."""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

SHORT_US = 100
"""The shortest slice that the kernel gives."""
_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""Numbers of the system calls sched_setattr and sched_getattr, for which the C library has no functions."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""The kernel's `sched_attr`: size, policy, flags, nice, priority, and the times runtime, deadline and period in ns."""


@contextmanager
def short_slices() -> Iterator[bool]:
    """Give what this thread starts within the block short slices, threads of theirs included.

    A thread that wakes takes the core from a running one whose slice is longer. With equal slices it waits until that
    one's slice is over, 1.4 ms on two cores. Needs no privilege, and takes no processor time from others: the share of
    each stays the same.

    Yields:
        Whether the kernel can do this: Linux 6.12 or later, on x86_64 or aarch64, and a thread of the usual policy.
    """
    usual = os.sched_getscheduler(0) == os.SCHED_OTHER
    given = usual and _set_us(SHORT_US)
    try:
        yield given
    finally:
        if given:
            _set_us(0)  # the kernel's own again


def slice_us(pid: int) -> int | None:
    """The slice of the first thread of a process in µs; None if the kernel gives none to processes."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if not _call(1, pid, attributes, _ATTRIBUTES.size, 0):
        return None
    runtime_ns = int(_ATTRIBUTES.unpack(attributes.raw)[5])
    return runtime_ns // 1000 or None


def _set_us(slice_of_us: int) -> bool:
    """Whether this thread has the slice now."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    written = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, 1000 * slice_of_us, 0, 0)
    if not _call(0, 0, ctypes.create_string_buffer(written, _ATTRIBUTES.size), 0):
        return False
    return slice_of_us == 0 or slice_us(0) == slice_of_us  # an older kernel takes the call, and leaves the slice


def _call(which: int, *arguments: object) -> bool:
    numbers = _CALLS.get(platform.machine())
    return numbers is not None and ctypes.CDLL(None).syscall(numbers[which], *arguments) == 0
