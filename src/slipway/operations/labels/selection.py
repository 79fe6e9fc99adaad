"""Chooses the journal's new rows for labels, within the day's budget, and writes every probability down."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from slipway.contract import SpecError
from slipway.operations.journal.reading import Columns, read_columns
from slipway.operations.journal.store import DAY_S, Store
from slipway.operations.labels.locks import only_one
from slipway.operations.labels.select import Selection, SelectSettings, select
from slipway.operations.watch.rows import ClassDirections, Rows

LOCK = "selection.lock"
CHUNK_ROWS = 5_000
MEANS_ROWS = 5_000
"""Most rows from which class means are computed where the watch has no reference."""


@dataclass(frozen=True)
class Selected:
    """The result of one selection."""

    considered: int
    chosen: tuple[int, ...]
    """Numbers of the rows for which people are asked, in the order of their images' hashes."""
    left: int
    """Labels that are left of the day's budget."""
    distances: str
    """Source of the class means from which the distances were measured."""


def choose(
    store: Store,
    classifier: str,
    *,
    bundle: str,
    settings: SelectSettings,
    now_s: float,
    labels: int | None = None,
    means: ClassDirections | None = None,
) -> Selected:
    """Consider all rows of a bundle that no selection has considered, and choose some of them for labels.

    Rows and questions are written in one transaction. A second selection waits for the first, and then finds its rows
    considered. The seed is the selection's number, so that a selection can be computed again.

    Args:
        labels: most labels to spend now; by default what is left of the day, which begins at midnight UTC.
        means: class means of the watch's reference; without it, means by predicted class of the rows themselves.

    Raises:
        SpecError: more labels than the day has left.
    """
    with only_one(store.folder / LOCK):
        left = settings.per_day - spent_today(store, classifier, now_s=now_s)
        if labels is not None and labels > left:
            raise SpecError(
                f"--labels {labels}: {max(left, 0)} of the {settings.per_day} labels of the day (UTC) are left; give "
                "fewer, or raise labels.per_day"
            )
        if left <= 0:
            return Selected(0, (), 0, "")
        ids, rows, distances = _waiting(store, classifier, bundle=bundle, means=means)
        if not len(rows):
            return Selected(0, (), left, distances)
        number = _number(store, now_s=now_s)
        found = select(rows, labels=left if labels is None else labels, settings=settings, seed=number)
        chosen = _write(store, ids, found, number=number, now_s=now_s)
    return Selected(len(rows), chosen, left - len(chosen), distances)


def spent_today(store: Store, classifier: str, *, now_s: float) -> int:
    """Labels that selections of this day (UTC) have asked for. Those of later days are of a clock that was wrong."""
    begun_s = now_s - now_s % DAY_S
    ((spent,),) = store.query(
        "SELECT count(*) FROM considered JOIN rows ON rows.id = considered.row WHERE rows.classifier = ? "
        "AND considered.chosen = 1 AND considered.selection >= ? AND considered.selection < ?",
        (classifier, 1000 * begun_s, 1000 * (begun_s + DAY_S)),
    )
    return int(spent)


def waiting(store: Store, classifier: str, *, bundle: str) -> Iterator[Columns]:
    """The rows that no selection has considered, in portions: a day's rows with their embeddings take gigabytes."""
    after = 0
    while True:
        columns = read_columns(store, classifier, bundle=bundle, after=after, most=CHUNK_ROWS, waiting=True)
        if not len(columns.id):
            return
        yield columns
        after = int(columns.id[-1])


def _waiting(
    store: Store, classifier: str, *, bundle: str, means: ClassDirections | None
) -> tuple[list[int], Rows, str]:
    """Numbers of the waiting rows, their columns, and the source of the class means for the distances."""
    told_of = "the watch's reference"
    if means is None:
        means, told_of = _own_means(store, classifier, bundle=bundle), "class means of the rows themselves"
    ids: list[int] = []
    parts: list[Rows] = []
    for columns in waiting(store, classifier, bundle=bundle):
        ids += columns.id.tolist()
        if means is None or columns.embedding is None:
            means, told_of = None, "nothing, since the network has no embedding: novelty is shared out evenly"
            nothing = np.zeros(len(columns.id))
            parts.append(Rows(columns.confidence, nothing, nothing, columns.class_id))
        else:
            rows = columns.watched(means)
            parts.append(Rows(rows.confidence, rows.distance, rows.norm, rows.class_id))
    if not parts:
        return [], Rows(np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64)), told_of
    names = ("confidence", "distance", "norm", "class_id")
    return ids, Rows(*(np.concatenate([vars(part)[name] for part in parts]) for name in names)), told_of


def _own_means(store: Store, classifier: str, *, bundle: str) -> ClassDirections | None:
    """Class means by predicted class of the waiting rows, of evenly spread ones where they are many."""
    ((most,),) = store.query("SELECT count(*) FROM rows WHERE classifier = ? AND bundle = ?", (classifier, bundle))
    step = max(1, most // MEANS_ROWS)
    embeddings, class_ids = [], []
    for columns in waiting(store, classifier, bundle=bundle):
        if columns.embedding is None:
            return None
        embeddings.append(columns.embedding[::step])
        class_ids.append(columns.class_id[::step])
    if not embeddings:
        return None
    return ClassDirections.of(np.concatenate(embeddings), np.concatenate(class_ids), most_axes=0)


def _number(store: Store, *, now_s: float) -> int:
    """Number of the new selection: Unix time in ms, and never that of another one."""
    ((last,),) = store.query("SELECT max(selection) FROM considered")
    now_ms = int(now_s * 1000)
    same = store.query("SELECT 1 FROM considered WHERE selection = ? LIMIT 1", (now_ms,))
    return int(last) + 1 if same else now_ms


def _write(store: Store, ids: list[int], found: Selection, *, number: int, now_s: float) -> tuple[int, ...]:
    """Write the considered rows and the questions; rows that were forgotten in the mean time are left out."""
    considered = [
        (number, float(probability), int(chosen), row)
        for row, probability, chosen in zip(ids, found.probability, found.chosen, strict=True)
    ]
    asked = [(now_s, row) for row, chosen in zip(ids, found.chosen, strict=True) if chosen]
    with store.transaction():
        store.write("INSERT INTO considered SELECT id, ?, ?, ? FROM rows WHERE id = ?", considered)
        store.write("INSERT OR IGNORE INTO asked SELECT id, 'chosen', ? FROM rows WHERE id = ?", asked)
        there = store.query(
            "SELECT row FROM considered JOIN rows ON rows.id = row WHERE selection = ? AND chosen = 1 "
            "ORDER BY rows.sha256, row",
            (number,),
        )
    return tuple(row for (row,) in there)
