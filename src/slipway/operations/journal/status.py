"""Content of a journal, for people and for `--json`."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.collector import FILES, PARITY
from slipway.operations.journal.folders import in_memory
from slipway.operations.journal.reading import check_values
from slipway.operations.journal.retention import put_off
from slipway.operations.journal.rows import PARITIES
from slipway.operations.journal.spool import DROPPED, read_dropped, tap_files
from slipway.operations.journal.store import IMAGES, Store

SHOWN = (
    *(
        "id",
        "request",
        "image",
        "client_id",
        "time_s",
        "classifier",
        "model",
        "arm",
        "bundle",
        "replayed_bundle",
        "status",
    ),
    *("label", "class_id", "score", "sampled_with", "parity", "width", "height", "format", "bytes", "brightness"),
    *("sha256", "kept"),
)


@dataclass(frozen=True)
class JournalStatus:
    """The state of a journal and its spool."""

    journal: str
    rows: int
    first: str | None
    """Time of the oldest row."""
    last: str | None
    parity: dict[str, int]
    """Replays since the journal was made, by what came of them."""
    files: dict[str, int]
    """Tap files since then, by what came of them."""
    images: int
    image_bytes: int
    spool: str
    spool_files: int
    spool_bytes: int
    spool_is_tmpfs: bool
    dropped: int
    """Tap files that the bound of the spool has removed."""
    pruning_put_off: str
    """Reason why the collector prunes nothing; empty if it does."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        parity = ", ".join(f"{name} {self.parity[name]:,}" for name in PARITIES if self.parity.get(name))
        files = ", ".join(f"{name} {value:,}" for name, value in sorted(self.files.items()))
        since = f", from {self.first} to {self.last}" if self.first else ""
        disk = "a tmpfs" if self.spool_is_tmpfs else "on a disk"
        alert = "alert: " if self.parity.get("differs") else ""
        return [
            f"{self.journal}: {self.rows:,} rows{since}; {self.images:,} images, {self.image_bytes / 2**20:,.1f} MiB",
            f"{alert}replays: {parity or 'none'}",
            f"tap files: {files or 'none'}; dropped by the bound {self.dropped:,}",
            f"{self.spool} ({disk}): {self.spool_files:,} tap files, {self.spool_bytes / 2**20:,.1f} MiB",
            *([f"alert: {self.pruning_put_off}"] if self.pruning_put_off else []),
        ]


def status_of(settings: GatewaySettings) -> JournalStatus:
    """Look at the journal and the spool of a gateway.

    Raises:
        SpecError: the journal is not there.
        StorageError: it cannot be read.
    """
    with Store.of(settings, make=False) as store:
        ((rows, first, last),) = store.query("SELECT count(*), min(time_s), max(time_s) FROM rows")
        counters = store.counters()
        doubt = put_off(store, image_days=settings.observe.image_days, now_s=time.time()) if settings.observe else ""
    parity: dict[str, int] = {}
    for (name, labels), value in counters.items():
        if name == PARITY:
            parity[labels[-1]] = parity.get(labels[-1], 0) + value
    sizes = list(_sizes(settings.journal / IMAGES))
    spooled = tap_files(settings.spool)
    return JournalStatus(
        journal=str(settings.journal),
        rows=rows,
        first=time_text(first),
        last=time_text(last),
        parity=parity,
        files={labels[0]: value for (name, labels), value in counters.items() if name == FILES},
        images=len(sizes),
        image_bytes=sum(sizes),
        spool=str(settings.spool),
        spool_files=len(spooled),
        spool_bytes=sum(file.size for file in spooled),
        spool_is_tmpfs=in_memory(settings.spool),
        dropped=read_dropped(settings.folder / DROPPED),
        pruning_put_off=doubt,
    )


def _sizes(images: Path) -> Iterator[int]:
    for path in images.glob("*/*"):
        with suppress(FileNotFoundError):  # the collector removes some, and renames new ones
            yield path.stat().st_size


def last_rows(settings: GatewaySettings, *, last: int, classifier: str | None) -> list[dict[str, Any]]:
    """The newest rows, newest first, without probabilities and embeddings; `time` is `time_s` in words.

    Raises:
        DataError: a row has values that no collector writes.
    """
    where, values = ("WHERE classifier = ?", [classifier]) if classifier is not None else ("", [])
    with Store.of(settings, make=False) as store:
        found = store.query(f"SELECT {', '.join(SHOWN)} FROM rows {where} ORDER BY id DESC LIMIT ?", [*values, last])
    check_values(SHOWN, found, settings_file=settings.file)
    rows = [dict(zip(SHOWN, one, strict=True)) for one in found]
    return [{**row, "time": time_text(row["time_s"])} for row in rows]


def time_text(time_s: float | None) -> str | None:
    """A Unix time in words, in UTC; as it is where a clock was far off, or where somebody changed it."""
    if time_s is None:
        return None
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError, TypeError):
        return str(time_s)
