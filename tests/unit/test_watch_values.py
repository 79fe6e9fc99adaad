"""Values that somebody wrote into the journal's database by hand, and that no collector writes."""

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.watch.run import Watch
from tests.support import watch_looks as fixtures
from tests.support.watch_looks import FILE_OF_SETTINGS
from tests.support.watch_rows import add_drawn, drawn, made_reference, watch_settings

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


@pytest.mark.parametrize("after_a_look", [False, True])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("time_s", float("inf")), ("time_s", float("-inf")), ("time_s", "today"), ("time_s", b"x")),
        *(("sampled_with", "half"), ("sampled_with", float("inf")), ("status", "fine"), ("score", "high")),
        *(("class_id", "two"), ("class_id", 2.5), ("brightness", b"dark"), ("bundle", b"x"), ("arm", b"x")),
        *(("width", "wide"), ("height", 1.5), ("bytes", b"x"), ("format", b"PNG"), ("sampled_with", 0)),
    ],
)
def test_a_value_that_somebody_wrote_into_the_journal_stops_its_classifier_alone_and_names_the_row(
    store: Store, column: str, value: object, after_a_look: bool
) -> None:
    add_drawn(store, drawn(150, seed=2), name="b", classifier="cats")
    made_reference(store.folder, classifier="cats")
    watch = Watch(store, watch_settings(store.folder), FILE_OF_SETTINGS, say=lambda _: None)
    if after_a_look:
        watch.look()
    odd = add_drawn(store, drawn(150, seed=1), name="a")[70]
    store.write(f"UPDATE rows SET {column} = ? WHERE id = ?", [(value, odd)])
    cats, digits = watch.look()
    assert cats.watched is not None
    assert cats.watched.drift is not None
    assert cats.watched.drift.rows == 150
    assert f"row {odd}: its {column} is {value!r}" in digits.told[0]
    assert f"slipway journal forget gateway.yaml {odd}" in digits.told[0]
    store.forget(str(odd))
    digits = watch.look()[1]
    assert digits.watched is not None
    assert digits.watched.drift is not None
    fed_before = column in ("width", "height", "bytes", "format")  # what is shown alone
    assert digits.watched.drift.rows == 149 + fed_before
