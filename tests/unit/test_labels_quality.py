"""`slipway labels status`: what is undecided, and how often each annotator is right."""

import sys
from pathlib import Path

import numpy as np
import pytest

from slipway.operations.labels.truth import KNOWN
from tests.support.journal_rows import made_row
from tests.support.labelled_journals import LabelledJournal, labelled_journal


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    return labelled_journal(tmp_path)


def say(journal: LabelledJournal, **labels: str) -> None:
    """A letter of `labels` for each row from 1, a space for none: z is zero, o is one."""
    meant = {"z": "zero", "o": "one"}
    for who, letters in labels.items():
        said = [(row, who, meant[letter]) for row, letter in enumerate(letters, 1) if letter != " "]
        with journal.open() as store:
            store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", said)


def test_annotators_are_judged_by_known_answers_and_by_others_who_agree(journal: LabelledJournal) -> None:
    journal.add_rows(6)
    journal.run("select", "--labels", "6")
    say(journal, ann="zzzo ", bob="zozz ", eve="zoz  ")
    with journal.open() as store:
        store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", [(2, KNOWN, "zero")])
    found = journal.run("status")
    counts = {name: found[name] for name in ("considered", "chosen", "asked", "labelled", "waiting")}
    assert counts == {"considered": 6, "chosen": 6, "asked": 6, "labelled": 3, "waiting": 2}
    assert found["undecided"] == ["row 4: 'one' (ann), 'zero' (bob)"]
    assert found["contradicted"] == ["row 2 is 'zero': 'one' (bob), 'one' (eve)"]
    ann, bob, eve = found["annotators"]
    assert (ann["name"], ann["right"], ann["known"], ann["agreed"], ann["pairs"]) == ("ann", 3, 3, 4, 7)
    assert (bob["right"], bob["known"]) == (2, 3)
    assert (eve["right"], eve["known"]) == (2, 3)
    assert (
        "bob: 4 labels; 2 of 3 right where the truth is known, agrees with others in" in journal.done("status").stdout
    )


def test_a_single_label_is_counted_as_a_number(journal: LabelledJournal) -> None:
    journal.add_rows(1)
    say(journal, ann="z")
    with journal.open() as store:
        store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", [(1, KNOWN, "zero")])
    assert "ann: 1 labels; 1 of 1 right where the truth is known" in journal.done("status").stdout


def test_cleanlab_tells_a_careless_annotator(journal: LabelledJournal) -> None:
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80)
    rows = []
    for place, class_id in enumerate(truth):
        probability = np.array([0.1, 0.1], np.float32)
        probability[class_id] = 0.9
        rows.append(made_row(str(place), probability=probability, class_id=int(class_id)))
    journal.add(rows)
    letters = np.array(["z", "o"])
    careless = np.where(rng.random(80) < 0.4, 1 - truth, truth)
    say(journal, ann="".join(letters[truth]), bob="".join(letters[careless]))
    found = {one["name"]: one["quality"] for one in journal.run("status", "--quality")["annotators"]}
    assert found["ann"] > found["bob"] + 0.1


def test_without_cleanlab_or_without_two_annotators_the_reason_is_told(
    journal: LabelledJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.add_rows(2)
    say(journal, ann="zz")
    assert "it needs two at least" in journal.done("status", "--quality").stderr
    monkeypatch.setitem(sys.modules, "cleanlab.multiannotator", None)
    assert "cleanlab is not installed: pip install 'slipway[train]'" in journal.done("status", "--quality").stderr
    assert journal.done("status").returncode == 0
