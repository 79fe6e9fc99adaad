"""`slipway labels add`: all labels of a file, or none of them."""

import hashlib
from pathlib import Path

import pytest

from slipway.operations.labels.truth import KNOWN
from slipway.system.text import command
from tests.support.labelled_journals import LabelledJournal, labelled_journal


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    found = labelled_journal(tmp_path)
    found.add_rows(4)
    return found


def labels(journal: LabelledJournal) -> list[tuple[int, str, str]]:
    return journal.query("SELECT row, annotator, label FROM labels ORDER BY row, annotator")  # type: ignore[return-value]


def test_labels_are_taken_in_by_row_or_by_image_and_may_change(journal: LabelledJournal) -> None:
    ((sha256,),) = journal.query("SELECT sha256 FROM rows WHERE id = 3")
    by_row = journal.table(("row", "label"), (1, "zero"), (2, "one"), (2, "one"))
    assert journal.run("add", by_row, "--annotator", "ann")["new"] == 2
    by_image = journal.table(("label", "sha256"), ("zero", sha256.upper()))
    assert journal.run("add", by_image, "--annotator", "ann")["new"] == 1
    again = journal.table(("row", "label"), (1, "one"), (2, "one"))
    found = journal.run("add", again, "--annotator", "ann")
    assert (found["new"], found["changed"], found["same"], found["not_asked"]) == (0, 1, 1, 2)
    assert labels(journal) == [(1, "ann", "one"), (2, "ann", "one"), (3, "ann", "zero")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(99, "zero")], "line 3: row 99 is not in the journal"),
        ([("one", "zero")], "row 'one'; give the number of a row"),
        ([(2, " zero")], "it has spaces around it"),
        ([(2, "ze\x07ro")], "U+0007"),
        ([(2, "z" * 201)], "has 201 characters; give at most 200"),
        ([(2, "unknown")], "stands for refused answers"),
        ([(2, "zeor")], "the label 'zeor' is new; did you mean 'zero'? If not, give --new-class 'zeor'"),
        ([(2, "cat")], "the label 'cat' is new; give --new-class 'cat'"),
        ([(2, "one"), (2, "zero")], "line 4: row 2 is 'zero', but 'one' in line 3; give one of them"),
        ([(2, "one", "more")], "3 values for 2 columns"),
        ([("9" * 30, "one")], "give the number of a row"),
    ],
)
def test_one_bad_row_and_nothing_is_written(
    journal: LabelledJournal, rows: list[tuple[object, ...]], words: str
) -> None:
    done = journal.done("add", journal.table(("row", "label"), (1, "zero"), *rows), "--annotator", "ann")
    assert done.returncode == 1
    assert words in done.stderr
    assert "nothing was written" in done.stderr
    assert not labels(journal)


def test_rows_of_others_and_refused_images_have_no_label(journal: LabelledJournal) -> None:
    (pets,) = journal.add_rows(1, classifier="pets")
    (refused,) = journal.add_rows(1, status=2)
    done = journal.done("add", journal.table(("row", "label"), (pets, "one"), (refused, "one")), "--annotator", "ann")
    assert f"row {pets} is one of pets, not of digits" in done.stderr
    assert f"row {refused} is a refused image (status 2)" in done.stderr


@pytest.mark.parametrize("header", [("row", "class"), ("row", "sha256", "label"), ("row;label",), ("label", "label")])
def test_other_columns_are_refused(journal: LabelledJournal, header: tuple[str, ...]) -> None:
    done = journal.done("add", journal.table(header, (1, "zero")), "--annotator", "ann")
    assert "needs label, and one of row and sha256" in done.stderr


def test_a_new_class_is_named_once_and_then_known(journal: LabelledJournal) -> None:
    first = journal.table(("row", "label"), (1, "two"))
    assert journal.run("add", first, "--annotator", "ann", "--new-class", "two")["new"] == 1
    assert journal.run("add", journal.table(("row", "label"), (2, "two")), "--annotator", "bob")["new"] == 1
    done = journal.done("add", first, "--annotator", "ann", "--new-class", "zero")
    assert "'zero' is a class of the bundle already" in done.stderr
    done = journal.done("add", first, "--annotator", "ann", "--new-class", "unknown")
    assert "stands for refused answers" in done.stderr


def test_a_label_by_a_clock_that_was_ahead_can_be_replaced(journal: LabelledJournal) -> None:
    with journal.open() as store:
        store.write("INSERT INTO labels VALUES (1, 'ann', 'zero', ?)", [(4e9,)])
    again = journal.table(("row", "label"), (1, "one"))
    assert journal.run("add", again, "--annotator", "ann")["changed"] == 1
    assert labels(journal)[0] == (1, "ann", "one")


def test_known_answers_have_a_name_that_nobody_else_can_take(journal: LabelledJournal) -> None:
    given = journal.table(("row", "label"), (1, "zero"))
    assert journal.run("add", given, "--known")["annotator"] == KNOWN
    assert "give --known instead" in journal.done("add", given, "--annotator", KNOWN).stderr
    assert "visible characters" in journal.done("add", given, "--annotator", "a\nb").stderr


def test_a_file_that_is_not_there_or_not_text_is_refused(journal: LabelledJournal) -> None:
    assert "cannot be read" in journal.done("add", journal.folder / "nowhere.csv", "--annotator", "ann").stderr
    path = journal.folder / "latin.csv"
    path.write_bytes(b"row,label\n1,\xe4\n")
    assert "not UTF-8" in journal.done("add", path, "--annotator", "ann").stderr


def test_a_sheet_has_the_images_that_wait_and_is_taken_in_as_far_as_it_is_filled(journal: LabelledJournal) -> None:
    journal.run("select", "--labels", 3)
    out = journal.folder / "to-label"
    assert journal.run("sheet", out)["images"] == 3
    table = out / "labels.csv"
    header, *lines = table.read_text().splitlines()
    assert header == "row,image,answer,label"
    first, image, answer, empty = lines[0].split(",")
    ((sha256,),) = journal.query("SELECT sha256 FROM rows WHERE id = ?", int(first))
    assert hashlib.sha256((out / image).read_bytes()).hexdigest() == sha256
    assert answer in ("zero", "one")
    assert not empty
    assert out.stat().st_mode & 0o077 == 0
    table.write_text("\n".join((header, f"{lines[0]}one", *lines[1:])))
    assert journal.run("add", table, "--annotator", "ann")["new"] == 1
    assert labels(journal) == [(int(first), "ann", "one")]
    assert "may hold labels that people wrote" in journal.done("sheet", out).stderr
    assert journal.run("sheet", journal.folder / "rest")["images"] == 2


def test_a_sheet_that_cannot_be_written_is_refused_with_a_sentence(journal: LabelledJournal) -> None:
    journal.run("select", "--labels", 1)
    (journal.folder / "link").symlink_to("nowhere")
    for out, said in (
        (journal.folder / "link", "a file or link, where"),
        (Path("/proc/to-label"), "cannot be written"),
    ):
        done = journal.done("sheet", out)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr


def test_an_image_of_a_sheet_that_is_damaged_is_left_out_and_named(journal: LabelledJournal) -> None:
    journal.run("select", "--labels", 2)
    ((row, sha256),) = journal.query("SELECT row, sha256 FROM asked JOIN rows ON rows.id = row LIMIT 1")
    (journal.folder / "journal/images" / sha256[:2] / sha256).write_bytes(b"")
    done = journal.done("sheet", journal.folder / "to-label")
    assert f"damaged or gone, and left out: row {row}" in done.stdout
    assert not list((journal.folder / "to-label").glob(f"{row}.*"))
    assert len(list((journal.folder / "to-label").iterdir())) == 1 + 1


def test_no_sheet_is_made_where_no_image_waits(journal: LabelledJournal) -> None:
    done = journal.done("sheet", journal.folder / "to-label")
    select = command("slipway labels select", journal.settings)
    assert f"no image waits for a label; {select} chooses some" in done.stderr
    assert not (journal.folder / "to-label").exists()
