"""Values that somebody wrote into the journal's database by hand, and that no collector writes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from slipway.cli import explain, journal, watch
from slipway.errors import DataError, StorageError
from slipway.operations.journal.status import last_rows, time_text
from slipway.operations.journal.store import Store, read_image
from slipway.operations.labels.explained import read_row
from slipway.operations.watch.run import Watch
from tests.support import watch_looks as fixtures
from tests.support.watch_looks import drift_in, look, watched_in
from tests.support.watch_rows import add_drawn, drawn, made_reference, watch_settings
from tests.unit.test_watch_shown import write_settings

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


@pytest.mark.parametrize("after_a_look", [False, True])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("time_s", float("inf")), ("time_s", float("-inf")), ("time_s", "today"), ("time_s", b"x")),
        *(("sampled_with", "half"), ("sampled_with", float("inf")), ("status", "fine"), ("score", "high")),
        *(("class_id", "two"), ("class_id", 2.5), ("brightness", b"dark"), ("bundle", b"x"), ("arm", b"x")),
        *(("width", "wide"), ("height", 1.5), ("bytes", b"x"), ("format", b"PNG"), ("sampled_with", 0)),
        *(("probability", 57), ("probability", "text"), ("embedding", b"odd"), ("embedding", 1.5)),
    ],
)
def test_a_value_that_somebody_wrote_into_the_journal_stops_its_classifier_alone_and_names_the_row(
    store: Store, column: str, value: object, after_a_look: bool
) -> None:
    add_drawn(store, drawn(150, seed=2), name="b", classifier="cats")
    made_reference(store.folder, classifier="cats")
    watch = Watch(store, watch_settings(store.folder), say=lambda _: None)
    if after_a_look:
        watch.look()
    odd = add_drawn(store, drawn(150, seed=1), name="a")[70]
    store.write(f"UPDATE rows SET {column} = ? WHERE id = ?", [(value, odd)])
    cats, digits = watch.look()
    assert drift_in(cats).rows == 150
    assert f"row {odd}: its {column} is {value!r}" in digits.told[0]
    assert f"slipway journal forget gateway.yaml {odd}" in digits.told[0]
    store.forget(str(odd))
    digits = watch.look()[1]
    fed_before = column in ("width", "height", "bytes", "format")  # what is shown alone
    assert drift_in(digits).rows == 149 + fed_before


@pytest.mark.parametrize(("column", "value"), [("class_id", 57), ("class_id", "two"), ("score", "high")])
def test_an_answer_that_was_changed_after_its_label_came_is_named_or_shown(
    store: Store, column: str, value: object
) -> None:
    row = add_drawn(store, drawn(150, seed=1), name="a")[70]
    store.write("INSERT INTO considered VALUES (?, 1, 0.5, 1)", [(row,)])
    store.write("INSERT INTO labels VALUES (?, 'ann', 'one', 1)", [(row,)])
    watch = Watch(store, watch_settings(store.folder), say=lambda _: None)
    watch.look()
    store.write(f"UPDATE rows SET {column} = ? WHERE id = ?", [(value, row)])
    store.write("UPDATE labels SET labelled_s = 2", [()])
    (facts,) = watch.look()
    if value == 57:
        assert "class 57" in [one.label for one in watched_in(facts).recalls]
    else:
        assert f"row {row}: its {column} is {value!r}" in facts.told[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("time_s", "today"), ("sampled_with", 0), ("sampled_with", "half"), ("score", ""), ("arm", b"x")),
        *(("status", "fine"), ("brightness", "dark"), ("sha256", b"x"), ("sha256", "../x"), ("sha256", "\0")),
    ],
)
def test_a_row_with_a_value_that_somebody_wrote_is_named_where_it_is_shown_and_can_be_forgotten(
    bare: Store, column: str, value: object
) -> None:
    odd = add_drawn(bare, drawn(3, seed=1), name="a")[1]
    bare.write(f"UPDATE rows SET {column} = ?, kept = 1 WHERE id = ?", [(value, odd)])
    with pytest.raises(DataError, match=f"forget gateway.yaml {odd} removes the row"):
        last_rows(watch_settings(bare.folder), last=9, classifier=None)
    with pytest.raises(DataError, match=f"forget gateway.yaml {odd} removes the row"):
        read_row(bare, odd)
    bare.forget(str(odd))
    assert len(last_rows(watch_settings(bare.folder), last=9, classifier=None)) == 2


def test_a_command_in_a_message_has_the_file_that_the_user_gave(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box = write_settings(tmp_path).rename(tmp_path / "team box.yaml")
    monkeypatch.chdir(tmp_path)
    odd = add_drawn(store, drawn(3, seed=1), name="a")[1]
    look(store)
    (tmp_path / "journal/images/ab").mkdir(parents=True)
    (tmp_path / f"journal/images/ab/{'ab' * 32}").write_bytes(b"another image")
    store.write("UPDATE rows SET sampled_with = 'half', kept = 1, sha256 = ? WHERE id = ?", [("ab" * 32, odd)])
    store.write("UPDATE pruned SET at_s = 1", [()])
    forget = f"slipway journal forget 'team box.yaml' {odd} removes the row"
    image = f"slipway journal forget 'team box.yaml' {'ab' * 32}"
    refused: list[tuple[Verb, tuple[str, ...], str]] = [
        (journal, ("rows", box.name), forget),
        (explain, (box.name, f"{odd}", "--run", "run"), forget),
        (journal, ("backup", box.name, "backup"), image),
    ]
    for verb, words, said in refused:
        with pytest.raises((DataError, StorageError)) as caught:
            call(verb, *words)
        assert said in str(caught.value)
    told: list[tuple[Verb, str]] = [(watch, forget), (journal, "slipway journal prune 'team box.yaml'")]
    for verb, said in told:
        call(verb, "status", box.name)
        assert said in capsys.readouterr().out


class Verb(Protocol):
    main: Callable[[argparse.Namespace], Any]
    parser: Callable[[], argparse.ArgumentParser]


def call(verb: Verb, *words: str) -> None:
    verb.main(verb.parser().parse_args(words))


@pytest.mark.parametrize("name", [b"x", "../../x", "\0", ""])
def test_an_image_with_a_name_that_is_no_hash_is_not_looked_for(bare: Store, name: str) -> None:
    with pytest.raises(DataError, match="not by a SHA-256"):
        read_image(bare.folder, name)


def test_a_time_that_is_text_is_shown_as_it_is() -> None:
    assert time_text("today") == "today"  # type: ignore[arg-type]
