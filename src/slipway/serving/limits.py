"""The kernel's limits for a server: open files, of which each connection takes one, and the stacks of its threads."""

import resource
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import ServingError

MOST_OPEN_FILES = 2**20
SERVER_FILES, INSTANCE_FILES = 192, 4
"""Files reserved for tritonserver itself (it opens 65) and for each stub (2), with room for users."""
STACK_BYTES = 256 * 2**20
"""tritonserver 2.51 copies the body of an HTTP form twice onto a thread's stack, and reads nested JSON by recursion.
With the usual 8 MiB, a form of 4 MiB ends it. Only touched pages take memory."""
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


@dataclass(frozen=True)
class ServerLimits:
    """The soft limits of a server."""

    open_files: int
    stack_bytes: int
    """Stack of a thread in bytes. -1 means unlimited, which glibc treats as 2 MiB."""

    @property
    def largest_form_bytes(self) -> int:
        """Size of a form-encoded body that ends tritonserver 2.51; bodies of other types do not."""
        return (self.stack_bytes if self.stack_bytes >= 0 else 2 * 2**20) // 2


def server_limits(*, instances: int) -> ServerLimits:
    """The highest limits that this process may give to a server with `instances` stubs.

    Raises:
        ServingError: the limit of open files is too low to serve anybody.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SERVER_FILES + INSTANCE_FILES * instances
    if hard < needed:
        raise ServingError(
            f"a process may have {hard} files open here, and this server needs {needed}: raise the hard limit before "
            "the start (ulimit -Hn as root, LimitNOFILE= of a systemd unit, docker run --ulimit nofile=65536)"
        )
    return ServerLimits(min(hard, MOST_OPEN_FILES), _stack_bytes())


def raise_open_files() -> None:
    """Raise the soft limit of open files of this process to its hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_OPEN_FILES), hard))


def _stack_bytes() -> int:
    """`STACK_BYTES` or the hard limit; unchanged if the kernel counts address space as memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    counted = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if counted or _OVERCOMMIT.read_text(encoding="utf-8").strip() == "2":
        return soft
    return STACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, STACK_BYTES)
