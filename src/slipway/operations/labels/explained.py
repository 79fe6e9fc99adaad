"""Reads one row of the journal with its image, to be explained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slipway.contract import SpecError
from slipway.operations.journal.status import time_text
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
        facts=_facts(dict(zip(facts.split(", "), rest, strict=True))),
        said=labels_of(store, classifier).get(number, {}),
        image=path.read_bytes() if path and path.is_file() else None,
    )


def _facts(found: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a row in words, without those that are empty."""
    size = f"{found['width']} x {found['height']}" if found["width"] else ""
    image = [found["format"] or "", size, f"{found['bytes']:,} bytes" if found["bytes"] is not None else ""]
    facts = {
        "time": time_text(found["time_s"]),
        "server": found["arm"],
        "model": found["model"],
        "client's id": found["client_id"],
        "asked again": found["parity"],
        "image": ", ".join(part for part in image if part),
        "brightness": None if found["brightness"] is None else f"{found['brightness']:.2f} of 1",
        "chosen": f"1 request in {1 / found['sampled_with']:.4g}",
    }
    return {name: str(value) for name, value in facts.items() if value}


def _floats(blob: bytes | None) -> Floats | None:
    return None if blob is None else np.frombuffer(blob, "<f4").astype(np.float64)
