"""Removes rows and images of a journal once they are older than their days."""

from collections.abc import Collection
from pathlib import Path

from slipway.operations.journal.store import DAY_S, IMAGES, Store
from slipway.system.text import command

GAP_SHARE = 0.1
"""Share of `image_days` by which the clock may be apart from the last pruning."""


def prune(
    store: Store, *, image_days: float, row_days: float, now_s: float, spooled: Collection[str] = ()
) -> dict[str, int]:
    """Remove what is older than its days, and images that no row keeps; returns the number of each.

    Args:
        spooled: requests whose tap file is in the spool.

    Raises:
        StorageError: the journal cannot be written.
    """
    spooled = set(spooled)
    with store.transaction():
        rows = store.write("DELETE FROM rows WHERE time_s < ?", [(now_s - row_days * DAY_S,)])
        store.write("UPDATE rows SET kept = 0 WHERE kept = 1 AND time_s < ?", [(now_s - image_days * DAY_S,)])
        old = store.query("SELECT request FROM done WHERE at_s < ?", (now_s - DAY_S,))
        gone = [(request,) for (request,) in old if request not in spooled]
        store.write("DELETE FROM done WHERE request = ?", gone)
        store.write("UPDATE pruned SET at_s = ?", [(now_s,)])
    folders = [path for path in (store.folder / IMAGES).glob("*") if path.is_dir()]
    return {"rows": rows, "images": sum(_sweep(store, folder) for folder in folders)}


def _sweep(store: Store, folder: Path) -> int:
    """Remove the images of `images/ab` that no row keeps, such as those of a collector that was killed meanwhile."""
    removed = 0
    with store.transaction():  # nobody adds a row meanwhile; between two folders others may
        found = store.query(
            "SELECT DISTINCT sha256 FROM rows WHERE sha256 >= ? AND sha256 < ? AND kept = 1",
            (folder.name, f"{folder.name}g"),  # g comes after every hexadecimal digit
        )
        kept = {sha256 for (sha256,) in found}
        for path in list(folder.iterdir()):
            if path.name not in kept and path.is_file():
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def put_off(store: Store, *, image_days: float, now_s: float) -> str:
    """Return the reason why the collector does not prune by itself; empty if it does.

    A machine that starts with a wrong clock would remove what is to be kept. Its clock is then far from the time of the
    last pruning: by over a day, and over a tenth of `image_days`.
    """
    ((last_s,),) = store.query("SELECT max(at_s) FROM pruned")
    days = (now_s - last_s) / DAY_S
    if abs(days) <= max(1.0, image_days * GAP_SHARE):
        return ""
    return (
        f"nothing is pruned, since the machine's clock is {abs(days):,.1f} days {'after' if days > 0 else 'before'} "
        f"the last pruning; if it is right, run {command('slipway journal prune', store.settings_file)}, else set it"
    )


class PruningSchedule:
    """Schedule of pruning: a minute after the start, then each hour; later if the machine's clock has jumped.

    A jump of days would remove what is to be kept, so nothing is removed in the hour after one.
    """

    FIRST_S, EVERY_S, JUMP_S = 60.0, 3600.0, 60.0

    def __init__(self, *, now_s: float, monotonic_s: float) -> None:
        self._offset = now_s - monotonic_s
        self._due = monotonic_s + self.FIRST_S

    def is_due(self, *, now_s: float, monotonic_s: float) -> bool:
        """Whether to prune now. Call it often: it compares the machine's clock with the monotonic one."""
        offset = now_s - monotonic_s
        if abs(offset - self._offset) > self.JUMP_S:
            self._due = monotonic_s + self.EVERY_S
        self._offset = offset
        if monotonic_s < self._due:
            return False
        self._due = monotonic_s + self.EVERY_S
        return True
