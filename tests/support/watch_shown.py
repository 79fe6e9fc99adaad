"""A journal that the watch looks at, and labels for its rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.watch import latency as latencies
from slipway.operations.watch.facts import Facts, Watched
from slipway.operations.watch.run import Watch
from tests.support.journal_rows import journal_in
from tests.support.watch_rows import LABELS, made_reference, watch_settings


@pytest.fixture(name="store")
def watched_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(latencies, "read_counts", lambda _: {})
    with journal_in(tmp_path / "journal", make=True) as store:
        made_reference(store.folder)
        yield store


def look(store: Store) -> Facts:
    return Watch(store, watch_settings(store.folder), say=lambda _: None).look()[0]


def watched(store: Store) -> Watched:
    found = look(store).watched
    assert found is not None
    return found


def select(store: Store, rows: Sequence[int], *, chosen: Sequence[int], selection: int, probability: float) -> None:
    considered = [(row, selection, probability, int(row in set(chosen))) for row in rows]
    store.write("INSERT INTO considered VALUES (?, ?, ?, ?)", considered)
    store.write("INSERT INTO asked VALUES (?, 'chosen', 0)", [(row,) for row in chosen])


def say_labels(store: Store, labels: dict[int, str], *, by: str = "ann") -> None:
    store.write("INSERT INTO labels VALUES (?, ?, ?, 5.0)", [(row, by, label) for row, label in labels.items()])


def truth(columns: dict[str, Any], rows: Sequence[int], *, wrong: int = 0) -> dict[int, str]:
    """The answers as labels, the first `wrong` of them another class."""
    ids = columns["class_id"].tolist()
    return {row: LABELS[(id_ + (place < wrong)) % 3] for place, (row, id_) in enumerate(zip(rows, ids, strict=True))}
