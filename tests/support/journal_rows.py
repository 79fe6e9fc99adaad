"""Rows of a journal without a server."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from slipway.operations.journal.pictures import Picture
from slipway.operations.journal.rows import Row
from slipway.operations.journal.store import Store, sha256_of

BUNDLE = "bundle-1"


def journal_in(folder: Path, *, make: bool) -> AbstractContextManager[Store]:
    """The journal in a folder, of a gateway whose settings are in `gateway.yaml`."""
    return Store.open(folder, make=make, settings_file=Path("gateway.yaml"))


def made_row(request: str, **changes: Any) -> Row:
    """A row of the classifier `digits`, which has two classes and an embedding of three values."""
    values: dict[str, Any] = {
        **{"request": request, "image": 0, "classifier": "digits", "model": "digits", "client_id": ""},
        **{"time_s": 1000.0, "sampled_with": 1.0, "arm": "stable", "bundle": BUNDLE, "replayed_bundle": BUNDLE},
        **{"status": 0, "label": "zero", "class_id": 0, "score": 0.9},
        **{"probability": np.array([0.9, 0.1], np.float32), "embedding": np.ones(3, np.float32)},
        **{"picture": Picture("PNG", 8, 8, 0.5), "bytes": 10, "sha256": None, "parity": "equal"},
    }
    return Row(**values | changes)


def add_rows(store: Store, rows: Sequence[Row], *, images: Sequence[bytes] = ()) -> list[int]:
    """Take rows in, and return the numbers that the journal gave them.

    Args:
        images: whose SHA-256 is in the rows.
    """
    content = {sha256_of(image): image for image in images}
    for row in rows:
        kept = {row.sha256: content[row.sha256]} if row.sha256 else {}
        store.add(row.request, [row], kept, counts=lambda _: {}, now_s=row.time_s)
    found = dict(store.query("SELECT request, id FROM rows"))
    return [found[row.request] for row in rows]
