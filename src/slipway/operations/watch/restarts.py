"""The log of alarms that people dealt with. `slipway watch restart` appends to it, and the watch carries it out."""

import getpass
import time
from pathlib import Path

from slipway.contract.base import Contract
from slipway.errors import SpecError
from slipway.operations.journal.store import Store
from slipway.operations.watch.test_split import folder_of, write_private

FILE = "restarts.json"


class Restart(Contract):
    """One entry: drift is watched anew after a row."""

    time_s: float
    by: str
    reason: str
    alarm: str | None
    """The alarm that was dealt with, in words; None if none was on."""
    after_row: int
    """Number of the journal's newest row at that time."""
    live: bool
    """Whether live rows are as they should be, so that the newest of them become the reference of drift."""


class Restarts(Contract):
    entries: tuple[Restart, ...] = ()


def read_restarts(journal: Path, classifier: str) -> tuple[Restart, ...]:
    """The log, oldest entry first.

    Raises:
        SpecError: the file is damaged.
    """
    path = folder_of(journal, classifier) / FILE
    return Restarts.read(path).entries if path.exists() else ()


def add_restart(store: Store, classifier: str, *, reason: str, live: bool, alarm: str | None) -> Restart:
    """Append an entry. A running watch takes it up with its next look, another one when it starts.

    Raises:
        SpecError: the reason is empty.
        StorageError: the file cannot be written.
    """
    if not reason.strip():
        raise SpecError("--reason: empty; say what was found, for whoever reads the log next")
    ((newest,),) = store.query("SELECT coalesce(max(id), 0) FROM rows")
    entry = Restart(
        time_s=time.time(), by=getpass.getuser(), reason=reason.strip(), alarm=alarm, after_row=newest, live=live
    )
    entries = (*read_restarts(store.folder, classifier), entry)
    write_private(folder_of(store.folder, classifier) / FILE, Restarts(entries=entries).to_json())
    return entry
