"""What people's labels say of rows: the label of the most annotators."""

from collections import Counter, defaultdict

from slipway.operations.journal.store import Store


def truths(store: Store, classifier: str, *, bundle: str | None = None) -> dict[int, str]:
    """The label of each labelled row of a classifier, by the row's number.

    Several annotators of a row decide by majority. A row on which they are divided equally has no label yet.

    Args:
        bundle: rows that this bundle answered; without it, those of every bundle.
    """
    said = store.query(
        "SELECT labels.row, labels.label FROM labels JOIN rows ON rows.id = labels.row "
        "WHERE rows.classifier = :classifier AND (:bundle IS NULL OR rows.bundle = :bundle)",
        {"classifier": classifier, "bundle": bundle},
    )
    by_row: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row, label in said:
        by_row[row][label] += 1
    found: dict[int, str] = {}
    for row, votes in by_row.items():
        (label, most), *others = votes.most_common(2)
        if not others or others[0][1] < most:
            found[row] = label
    return found
