"""One operator at a time: a process that changes a release holds the lock file of its gateway, until it ends."""

import fcntl
import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.contract import SpecError
from slipway.contract.typed_file import Contract
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

    def __str__(self) -> str:
        return f"{self.by} changes this release ({self.action}) since {self.since}, in process {self.pid}"


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


def holder_of(folder: Path, *, file: str = LOCK) -> str | None:
    """Return a sentence on the process that holds a lock of the gateway's `folder`; None if none does.

    The lock is not touched. A process that was killed leaves its words in the file, so the process that they name must
    have the file open. That of another user or container is not seen.
    """
    path = folder / file
    try:
        holder = Holder.model_validate_json(path.read_bytes())
        files = {one.resolve() for one in Path(f"/proc/{holder.pid}/fd").iterdir()}
    except (OSError, ValueError):
        return None
    return str(holder) if path.resolve() in files else None


def _holder(path: Path) -> str:
    try:
        return str(Holder.model_validate_json(path.read_bytes()))
    except (OSError, ValueError):
        return "another operator has just begun to change this release"
