"""Numbers of rows: of those that the watch feeds, as `read_columns` chooses them, and of the newest ever."""

from slipway.operations.journal.store import Store

_ACCEPTED = (
    "FROM rows WHERE classifier = :classifier AND bundle = :bundle AND replayed_bundle = bundle AND status = 0 "
    "AND probability IS NOT NULL AND id > :after"
)


def newest_after(store: Store, classifier: str, *, bundle: str, most: int, after: int = 0) -> int:
    """The number after which at most `most` of the newest accepted rows lie, and none that is not over `after`."""
    found = store.query(
        f"SELECT id {_ACCEPTED} ORDER BY id DESC LIMIT :most",
        {"classifier": classifier, "bundle": bundle, "after": after, "most": most},
    )
    return max(after, found[-1][0] - 1) if found else after


def count_between(store: Store, classifier: str, *, bundle: str, after: int, until: int) -> int:
    """Number of accepted rows over `after` and at most `until`."""
    ((count,),) = store.query(
        f"SELECT count(*) {_ACCEPTED} AND id <= :until",
        {"classifier": classifier, "bundle": bundle, "after": after, "until": until},
    )
    return int(count)


def row_before(
    store: Store, classifier: str, *, bundle: str, after: int, at: int, back: int
) -> tuple[int, float] | None:
    """Number and time of the accepted row `back` places before the row `at`, over `after`; None if it was removed.

    It is counted backwards, since retention removes the oldest rows.
    """
    found = store.query(
        f"SELECT id, time_s {_ACCEPTED} AND id <= :at ORDER BY id DESC LIMIT 1 OFFSET :back",
        {"classifier": classifier, "bundle": bundle, "after": after, "at": at, "back": back},
    )
    return (int(found[0][0]), float(found[0][1])) if found else None


def newest_ever(store: Store) -> int:
    """The largest number that a row of this journal ever had; removed rows count."""
    found = store.query("SELECT seq FROM sqlite_sequence WHERE name = 'rows'")
    return int(found[0][0]) if found else 0
