"""labels.txt: the line number is the class id, so what cannot be one line, or one class, is refused."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import SlipwayError, SpecError, check_labels, read_labels, write_labels
from slipway.contract.labels import read_label_list

printable = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1).filter(
    lambda label: label == label.strip() and label != "unknown"
)


@given(labels=st.lists(printable, min_size=2, max_size=30, unique_by=lambda label: unicodedata.normalize("NFC", label)))
def test_labels_round_trip(labels: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.txt"
    write_labels(labels, path)
    assert read_labels(path) == tuple(labels)
    assert path.read_bytes().count(b"\n") == len(labels)


def test_a_file_without_the_last_line_break_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"cat\ndog")
    assert read_labels(path) == ("cat", "dog")


@pytest.mark.parametrize("labels", [[], ["cat"]])
def test_too_few_labels_are_refused(labels: list[str]) -> None:
    with pytest.raises(SpecError, match=rf"here: {len(labels)} label\(s\) given; a classifier needs at least 2"):
        check_labels(labels, source="here")


@pytest.mark.parametrize(
    "label", ["", " ", " dog", "dog ", "dog\n", "do\ng", "do\rg", "do\u2028g", "do\x85g", "do\tg", "do\0g", "\ud800"]
)
def test_a_label_that_is_not_one_printable_line_is_refused_by_number(label: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        check_labels(["cat", label], source="here")
    assert str(caught.value).startswith(f"here: label 1 is {label!r}: it ")
    assert str(caught.value).endswith("; rename the class")
    with pytest.raises(SpecError):
        write_labels(["cat", label], tmp_path / "labels.txt")
    assert not (tmp_path / "labels.txt").exists()


@pytest.mark.parametrize(
    "label",
    ["می\u200cخواهم", "क्\u200dष", "👨\u200d👩\u200d👧", "日本語", "שלום"],  # noqa: RUF001  not Latin letters
)
def test_words_of_every_script_are_labels(label: str) -> None:
    assert check_labels(["cat", label], source="here") == ("cat", label)


def test_a_character_that_cannot_be_seen_is_named() -> None:
    with pytest.raises(SpecError, match=r"it holds U\+00A0 \(NO-BREAK SPACE\), which cannot be seen"):
        check_labels(["cat", "a\xa0b"], source="here")


def test_labels_that_differ_only_in_how_letters_are_composed_are_the_same_label() -> None:
    with pytest.raises(SpecError, match="label 'cafe\u0301' stands for classes 0 and 1; rename one"):
        check_labels(["caf\u00e9", "cafe\u0301"], source="here")


def test_a_duplicated_label_is_named_with_both_classes() -> None:
    with pytest.raises(SpecError, match="label 'dog' stands for classes 1 and 3; rename one"):
        check_labels(["cat", "dog", "Dog", "dog"], source="here")


def test_the_word_for_refused_answers_is_reserved() -> None:
    with pytest.raises(SpecError, match="label 0 is 'unknown', reserved for refused answers"):
        check_labels(["unknown", "cat"], source="here")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"1 label\(s\) given"),
        (b"cat\n", r"1 label\(s\) given"),
        (b"cat\n\ndog\n", "label 1 is ''"),
        (b"cat\ndog\n\n", "label 2 is ''"),
        (b"cat\ndog\ncat\n", "classes 0 and 2"),
        (b"cat\rdog\nbird\n", r"label 0 is 'cat\\rdog'"),
        (b"cat\n\xff\n", "labels.txt"),
    ],
)
def test_a_wrong_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(SpecError, match=says):
        read_labels(tmp_path / "labels.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "content",
    [b"cat\ndog", b"cat\r\ndog\r\n", b"\xef\xbb\xbfcat\ndog\n", b"cat\ndog\n\n", b"\xef\xbb\xbfcat\r\ndog\r\n\r\n"],
)
def test_a_list_of_labels_is_read_as_any_editor_saves_it(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "labels.txt").write_bytes(content)
    assert read_label_list(path) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"cat\n\ndog\n", "line 2 is blank; remove it"),
        (b"\ncat\ndog\n", "line 1 is blank; remove it"),
        (b"cat\n dog\n", "line 2: ' dog' has spaces around it; remove them"),
        (b"cat\rdog\r", "line 1: a lone carriage return; save the file with Unix line endings"),
        ("cat\ndog\n".encode("utf-16"), "not UTF-8 text .*; save it in UTF-8"),
        (b"cat\ndog\ncat\n", "classes 0 and 2; rename one"),
        (b"", "line 1 is blank"),
        (b"cat\n", r"1 label\(s\) given"),
    ],
)
def test_a_list_of_labels_that_cannot_be_used_says_what_to_change(content: bytes, says: str, tmp_path: Path) -> None:
    (path := tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(SpecError, match=f"labels.txt: (.*)?{says}"):
        read_label_list(path)
