"""Reads one row of the journal with its image, to be explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slipway.contract import SpecError
from slipway.contract.labels import RESERVED
from slipway.operations.journal.reading import check_values
from slipway.operations.journal.rows import Parity
from slipway.operations.journal.status import time_text
from slipway.operations.journal.store import Store, read_image
from slipway.operations.labels.truth import decided, labels_of
from slipway.operations.watch.rows import Floats
from slipway.steps.guard import STATUS_NAMES
from slipway.system.text import command

_PARITY: dict[Parity, str] = {
    "equal": "the same image got the same answer again",
    "differs": "the same image got another answer later, by the same bundle",
    "other_bundle": "not compared: another bundle answered the second time",
    "not_comparable": "not compared: the client did not ask for all of the answer",
    "not_replayed": "not asked again, so that probabilities and embedding are missing",
}


@dataclass(frozen=True)
class ExplainedRow:
    """A row of the journal, as its explanation needs it."""

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
    """Facts about the row in words, by name."""
    said: dict[str, str]
    """Label that each annotator gave, by annotator."""
    image: bytes | None
    """Encoded image; None if the journal does not keep it."""

    @property
    def is_refused(self) -> bool:
        return self.status != 0

    def answer(self, *, likeliest: str | None, several: bool) -> str:
        """The answer in a sentence.

        Args:
            likeliest: the likeliest class with its probability, if the row has probabilities.
            several: whether the classifier gives several labels for an image, of which the journal keeps the first.
        """
        if self.is_refused:
            name = STATUS_NAMES[self.status] if self.status < len(STATUS_NAMES) else "a newer release's"
            return f"The image was refused, and nothing was classified: {name} (STATUS {self.status})."
        if self.label is None:
            return "The client asked for no label, and the image was not asked again."
        score = "" if self.score is None else f", with a score of {self.score:.4f}"
        if not self.label:
            return "The answer was no label: none is over its threshold."
        if self.label == RESERVED:
            known = f": {likeliest} is likeliest, and not enough for the decision policy" if likeliest else score
            return f"The answer was {self.label}{known}."
        first = "The first label of the answer" if several else "The answer"
        more = " The journal keeps the first label alone." if several else ""
        return f"{first} was {self.label}{score}.{more}"

    @property
    def said_told(self) -> str:
        """A sentence on the label that counts, or on the annotators' disagreement."""
        label = decided(self.said) if self.said else None
        if label is None:
            return "The annotators are divided, so that no label counts."
        right = "as the classifier answered" if label == self.label else f"and the classifier answered {self.label}"
        return f"The label that counts is {label}, {right}."


_ANSWER = ("classifier", "bundle", "status", "label", "class_id", "score", "probability", "embedding", "sha256", "kept")
_FACTS = (
    *("time_s", "arm", "model", "client_id", "parity", "format", "width", "height", "bytes", "brightness"),
    "sampled_with",
)


def read_row(store: Store, number: int) -> ExplainedRow:
    """Raises SpecError: no such row. DataError: it has values that no collector writes."""
    names = ("id", *_ANSWER, *_FACTS)
    found = store.query(f"SELECT {', '.join(names)} FROM rows WHERE id = ?", (number,))
    if not found:
        last = command("slipway journal rows", store.settings_file)
        raise SpecError(f"row {number} is not in the journal; {last} shows the last ones")
    check_values(names, found, settings_file=store.settings_file)
    (_, classifier, bundle, status, label, class_id, score, probability, embedding, sha256, kept, *facts) = found[0]
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
        facts=_facts(facts),
        said=labels_of(store, classifier).get(number, {}),
        image=read_image(store.folder, sha256) if sha256 and kept else None,
    )


def _facts(columns: Sequence[Any]) -> dict[str, str]:
    """The columns of `_FACTS`, named for people."""
    time_s, arm, model, client_id, parity, kind, width, height, size, brightness, sampled = columns
    pixels = f"{width} x {height} pixels, " if width and height else ""
    facts = {
        "time of the request": time_text(time_s) or "",
        "answered by": f"the {arm} release",
        "ensemble": model,
        "client's id": client_id,
        "asked again": _PARITY.get(parity, parity),
        "image": f"{kind or 'format not known'}, {pixels}{size:,} bytes",
        "brightness": "" if brightness is None else f"{brightness:.3f} (0 black, 1 white)",
        "probability of being in the journal": f"{sampled:g}",
    }
    return {name: value for name, value in facts.items() if value}


def _floats(blob: bytes | None) -> Floats | None:
    return None if blob is None else np.frombuffer(blob, "<f4").astype(np.float64)
