"""The log of alarms that people dealt with. `slipway watch restart` appends to it, and the watch carries it out."""

import getpass
import time
from pathlib import Path

from slipway.contract.typed_file import Contract
from slipway.errors import SpecError
from slipway.operations.journal.status import time_text
from slipway.operations.journal.store import Store
from slipway.operations.labels.locks import only_one
from slipway.operations.watch.row_numbers import newest_after
from slipway.operations.watch.state import Current, WatchState
from slipway.operations.watch.test_split import folder_of, write_private

FILE, LOCK = "restarts.json", "restarts.lock"


class Restart(Contract):
    """One entry: drift is watched anew after a row."""

    time_s: float
    by: str
    reason: str
    bundle: str
    """The bundle that was watched at that time; the entry says nothing of another one's rows."""
    alarm: str | None
    """The alarm that was dealt with, in words; None if none was on."""
    after_row: int
    """Number of the journal's newest row at that time."""
    live_after: int | None
    """Number of the row after which live rows are as they should be, and make the reference of drift; None without
    `--live`."""


class Restarts(Contract):
    entries: tuple[Restart, ...] = ()


def read_restarts(journal: Path, classifier: str) -> tuple[Restart, ...]:
    """The log, oldest entry first.

    Raises:
        SpecError: the file is damaged.
    """
    path = folder_of(journal, classifier) / FILE
    try:
        return Restarts.read(path).entries if path.exists() else ()
    except SpecError as error:
        raise SpecError(f"{error}; move {path} away: the watch goes on where it was, with a new log") from None


def add_restart(store: Store, state: WatchState, *, reason: str, live: int | None) -> Restart:
    """Append an entry. A running watch takes it up with its next look, another one when it starts.

    Args:
        live: number of rows that become the reference of drift: the newest ones since the change, or since the last
            restart; those that a restart with `live` took are taken again. Rows that come later count where there are
            not as many. None keeps the reference.

    Raises:
        SpecError: the reason is empty.
        StorageError: the file cannot be written.
    """
    current, classifier = state.current, state.classifier
    assert current is not None, "the caller has checked it"
    if not reason.strip():
        raise SpecError("--reason: empty; say what was found, for whoever reads the log next")
    folder = folder_of(store.folder, classifier)
    with only_one(folder / LOCK):  # two people may do so at once
        entries = read_restarts(store.folder, classifier)
        entry = _entry(store, current, entries, classifier, reason=reason.strip(), live=live)
        write_private(folder / FILE, Restarts(entries=(*entries, entry)).to_json())
    return entry


def _entry(
    store: Store, current: Current, entries: tuple[Restart, ...], classifier: str, *, reason: str, live: int | None
) -> Restart:
    ((newest,),) = store.query("SELECT coalesce(max(id), 0) FROM rows")
    alarm, live_after = current.bets.alarm if current.bets is not None else None, None
    if live is not None:
        since = max((_begins_after(one) for one in entries if one.bundle == current.bundle), default=0)
        if alarm is not None and alarm.since_journal_row is not None:
            since = max(since, alarm.since_journal_row - 1)
        live_after = newest_after(store, classifier, bundle=current.bundle, most=live, after=min(since, newest))
    return Restart(
        time_s=time.time(),
        by=getpass.getuser(),
        reason=reason,
        bundle=current.bundle,
        alarm=None if alarm is None else f"{alarm.event}, since {time_text(alarm.since_s)}",
        after_row=newest,
        live_after=live_after,
    )


def _begins_after(entry: Restart) -> int:
    """Number of the row after which a later `--live` may take rows: those that this entry took count again; after an
    entry without `--live`, only rows that came later."""
    return entry.after_row if entry.live_after is None else entry.live_after
