"""Folders that only their user, or one process, may use."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import SpecError
from slipway.system.targets import told


def private_folder(folder: Path, *, what: str, marker: str = "") -> None:
    """Make a folder with mode 0700, or take one that is empty, has that mode, or holds `marker`.

    Raises:
        SpecError: others may use it, and it has something else in it, so that its mode is not ours to change.
        StorageError: it cannot be made.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077 == 0:
            return
        if any(folder.iterdir()) and not (marker and (folder / marker).exists()):
            raise SpecError(
                f"{what}: others may use {folder} (mode {mode:04o}), and it is not empty; give a folder of its own, or "
                f"chmod 700 {folder}"
            )
        folder.chmod(0o700)


@contextlib.contextmanager
def only_process(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock file for the block; raises SpecError with the sentence `otherwise` if another process holds it."""
    with told(lock.parent):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(otherwise) from None
        yield
    finally:
        os.close(descriptor)  # and so does a kill: the lock never stays


def in_memory(folder: Path) -> bool:
    """Whether the folder, which exists, is on a tmpfs."""
    with contextlib.suppress(OSError):
        device = f"{os.major(folder.stat().st_dev)}:{os.minor(folder.stat().st_dev)}"
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == device:
                return after.split()[0] in {"tmpfs", "ramfs"}
    return False
