"""What several annotators say of a row."""

from pathlib import Path

from slipway.operations.labels.truth import truths
from tests.support.journal_rows import add_rows, journal_in, made_row


def test_the_majority_decides_and_a_tie_is_no_label(tmp_path: Path) -> None:
    with journal_in(tmp_path, make=True) as store:
        first, second, third = add_rows(store, [made_row(request) for request in "abc"])
        said = [(first, "ann", "cat"), (first, "bob", "dog"), (first, "eve", "dog"), (second, "ann", "cat")]
        said += [(third, "ann", "cat"), (third, "bob", "dog")]
        assert store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", said) == 6
        assert truths(store, "digits") == {first: "dog", second: "cat"}
        assert truths(store, "digits", bundle="another") == truths(store, "pets") == {}
        store.forget(str(first))
        assert truths(store, "digits") == {second: "cat"}
