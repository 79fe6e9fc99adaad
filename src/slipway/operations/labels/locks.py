"""One at a time: selections, and exchanges with Label Studio."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.system.targets import told


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait until no other process is in the block; the lock goes with its process, however that ends."""
    with told(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
