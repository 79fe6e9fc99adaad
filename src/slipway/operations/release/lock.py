"""One operator at a time: a process that changes a release holds the lock file of its gateway, until it ends."""

import fcntl
import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.contract import SpecError
from slipway.contract.base import Contract
from slipway.operations.gateway.routes import make_folder
from slipway.operations.release.record import now
from slipway.system.targets import told

LOCK = "release.lock"


class Holder(Contract):
    """The content of a lock file that is held."""

    action: str
    by: str
    pid: int
    since: str


@contextmanager
def only_operator(folder: Path, action: str, *, wait: bool = False, file: str = LOCK) -> Iterator[None]:
    """Hold the lock of the gateway's `folder` for the block. With `wait`, wait until no other process holds it.

    Args:
        file: another lock, for what may take long and changes no weights.

    Raises:
        SpecError: another process holds it, and we do not wait; the message says which, and since when.
        StorageError: the folder cannot be written.
    """
    path = folder / file
    with told(path):
        make_folder(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(f"{path}: {_holder(path)}; wait until it ends") from None
        holder = Holder(action=action, by=getpass.getuser(), pid=os.getpid(), since=now())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.to_json().encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        holder = Holder.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return "another operator has just begun to change this release"
    return f"{holder.by} changes this release ({holder.action}) since {holder.since}, in process {holder.pid}"
