"""Reads rows of a journal as columns, for the watch and for the choice of labels."""

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slipway.errors import DataError
from slipway.operations.journal.store import Store, is_sha256
from slipway.operations.watch.rows import ClassDirections, Floats, Ints, Rows, rows_of
from slipway.system.text import command

_COLUMNS = ("id", "time_s", "sampled_with", "score", "class_id", "brightness", "probability", "embedding")


def _none_or(*types: type) -> Callable[[object], bool]:
    return lambda value: value is None or isinstance(value, types)


def _is_values(value: object) -> bool:
    return value is None or (isinstance(value, bytes) and len(value) % 4 == 0)


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("arm", "bundle", "format", "client_id", "label", "model"), (_none_or(str), "text")),
    **dict.fromkeys(("status", "class_id", "width", "height", "bytes"), (_none_or(int), "a whole number")),
    **dict.fromkeys(("score", "brightness"), (_none_or(int, float), "a number")),
    **dict.fromkeys(("probability", "embedding"), (_is_values, "FP32 values")),
    "sha256": (lambda value: value is None or is_sha256(value), "a SHA-256"),
    "time_s": (lambda value: isinstance(value, int | float) and math.isfinite(value), "a finite number of seconds"),
    "sampled_with": (lambda value: isinstance(value, int | float) and 0 < value <= 1, "a probability over 0"),
}
"""Types that the collector writes into each column. SQLite also takes other values, from a person who changes it by
hand."""


@dataclass(frozen=True)
class Columns:
    """Accepted images of one classifier and one bundle, in the order in which they were taken in."""

    id: Ints
    time_s: Floats
    sampled_with: Floats
    """Probability with which the request was chosen: the π of every sum over all requests."""
    confidence: Floats
    class_id: Ints
    brightness: Floats
    """NaN where the image could not be decoded here."""
    probability: Floats
    """`[n, classes]`"""
    embedding: Floats | None
    """`[n, d]`; None for a network without one."""

    def watched(self, means: ClassDirections | None) -> Rows:
        """The rows as the watch takes them, with distances to these class means; None for a network without an
        embedding."""
        return rows_of(self.confidence, self.class_id, self.brightness, self.embedding, means)


def read_columns(
    store: Store, classifier: str, *, bundle: str, after: int = 0, most: int = 100_000, waiting: bool = False
) -> Columns:
    """The rows of a classifier whose number is over `after`, oldest first and `most` of them.

    Left out are refused images, and rows that were replayed by another bundle or not at all.

    Args:
        waiting: only rows whose image is kept, and that no selection of labels has considered.

    Raises:
        DataError: rows of one bundle differ in length, or have values that no collector writes.
    """
    found = store.query(
        f"SELECT {', '.join(_COLUMNS)} FROM rows WHERE classifier = ? AND bundle = ? AND replayed_bundle = bundle "
        "AND status = 0 AND probability IS NOT NULL AND id > ? "
        "AND (NOT ? OR (kept = 1 AND id NOT IN (SELECT row FROM considered))) ORDER BY id LIMIT ?",
        (classifier, bundle, after, waiting, most),
    )
    check_values(_COLUMNS, found, settings_file=store.settings_file)
    ids, times, chances, scores, class_ids, brightness, probabilities, embeddings = (
        list(column) for column in (zip(*found, strict=True) if found else [()] * 8)
    )
    return Columns(
        id=np.array(ids, np.int64),
        time_s=np.array(times, np.float64),
        sampled_with=np.array(chances, np.float64),
        confidence=np.array([np.nan if one is None else one for one in scores], np.float64),
        class_id=np.array([-1 if one is None else one for one in class_ids], np.int64),
        brightness=np.array([np.nan if one is None else one for one in brightness], np.float64),
        probability=_matrix(probabilities),
        embedding=None if found and None in embeddings else _matrix(embeddings),
    )


def check_values(names: Sequence[str], found: Iterable[Sequence[object]], *, settings_file: Path) -> None:
    """Check values of rows before anybody computes with them.

    Args:
        names: of the columns; the first is `id`.
        settings_file: the gateway's settings, for the command in the message.

    Raises:
        DataError: a value is not of its column's kind; the message names the row.
    """
    checked = [(place, name, *_KINDS[name]) for place, name in enumerate(names) if name in _KINDS]
    for row in found:
        for place, name, is_kind, kind in checked:
            if not is_kind(row[place]):
                remove = command("slipway journal forget", settings_file, str(row[0]))
                given = reprlib.repr(row[place])
                raise DataError(
                    f"row {row[0]}: its {name} is {given}, and not {kind}; somebody changed the journal, or it is "
                    f"damaged: {remove} removes the row"
                )


def _matrix(blobs: Sequence[bytes]) -> Floats:
    lengths = {len(blob) for blob in blobs}
    if len(lengths) > 1:
        raise DataError("rows of one bundle differ in length; the journal is damaged: give it another folder")
    found: Floats = np.frombuffer(b"".join(blobs), "<f4").astype(np.float64)
    return found.reshape(len(blobs), -1) if blobs else np.empty((0, 0))
