"""Reads one row of the journal with its image, to be explained."""

from dataclasses import dataclass

import numpy as np

from slipway.contract import SpecError
from slipway.operations.journal.store import Store, image_path
from slipway.operations.labels.truth import labels_of
from slipway.operations.watch.rows import Floats


@dataclass(frozen=True)
class ExplainedRow:
    """What the journal knows of a row."""

    number: int
    classifier: str
    bundle: str | None
    status: int
    label: str | None
    class_id: int | None
    score: float | None
    probability: Floats | None
    embedding: Floats | None
    facts: dict[str, str]
    """What a person may want to know of it, in words."""
    said: dict[str, str]
    """What annotators say, by annotator."""
    image: bytes | None
    """None if it is not kept."""


def read_row(store: Store, number: int) -> ExplainedRow:
    """Raises SpecError: no such row."""
    names = "classifier, bundle, status, label, class_id, score, probability, embedding, sha256, kept"
    facts = "time_s, arm, model, client_id, parity, format, width, height, bytes, brightness, sampled_with"
    found = store.query(f"SELECT {names}, {facts} FROM rows WHERE id = ?", (number,))
    if not found:
        raise SpecError(f"row {number} is not in the journal; slipway journal rows shows the last ones")
    (classifier, bundle, status, label, class_id, score, probability, embedding, sha256, kept, *rest) = found[0]
    path = image_path(store.folder, sha256) if sha256 and kept else None
    return ExplainedRow(
        number=number,
        classifier=classifier,
        bundle=bundle,
        status=status,
        label=label,
        class_id=class_id,
        score=score,
        probability=_floats(probability),
        embedding=_floats(embedding),
        facts={name: str(value) for name, value in zip(facts.split(", "), rest, strict=True) if value is not None},
        said=labels_of(store, classifier).get(number, {}),
        image=path.read_bytes() if path and path.is_file() else None,
    )


def _floats(blob: bytes | None) -> Floats | None:
    return None if blob is None else np.frombuffer(blob, "<f4").astype(np.float64)
