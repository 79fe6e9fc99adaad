"""Decides the label of a row: the label of the most annotators."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from slipway.operations.journal.store import Store

KNOWN = "known answer"
"""Annotator of the rows whose truth is known."""


def truths(store: Store, classifier: str, *, bundle: str | None = None) -> dict[int, str]:
    """The label of each labelled row of a classifier, by the row's number.

    A known answer decides alone. Else the label of most annotators does, though it may be less than half of them; where
    two labels have most, the row has no label yet.

    Args:
        bundle: rows that this bundle answered; without it, those of every bundle.
    """
    found: dict[int, str] = {}
    for row, said in labels_of(store, classifier, bundle=bundle).items():
        if (label := decided(said)) is not None:
            found[row] = label
    return found


def labels_of(store: Store, classifier: str, *, bundle: str | None = None) -> dict[int, dict[str, str]]:
    """Return the label that each annotator gave to each labelled row, by row and annotator."""
    said = store.query(
        "SELECT labels.row, labels.annotator, labels.label FROM labels JOIN rows ON rows.id = labels.row "
        "WHERE rows.classifier = :classifier AND (:bundle IS NULL OR rows.bundle = :bundle) ORDER BY labels.row",
        {"classifier": classifier, "bundle": bundle},
    )
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for row, annotator, label in said:
        found[row][annotator] = label
    return dict(found)


def decided(said: Mapping[str, str]) -> str | None:
    """The label of one row by each annotator's label; None for a tie."""
    if KNOWN in said:
        return said[KNOWN]
    ((label, most), *others) = Counter(said.values()).most_common(2)
    return label if not others or others[0][1] < most else None
