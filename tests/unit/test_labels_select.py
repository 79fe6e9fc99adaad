"""`slipway labels select`: every row once, within the day's budget, with its probability."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slipway.contract import SpecError
from slipway.operations.journal.store import DAY_S
from slipway.operations.labels.reference import reference_means
from slipway.operations.labels.select import SelectSettings
from slipway.operations.labels.selection import Selected, choose
from slipway.system.yaml_json import dump_yaml, parse_yaml
from tests.support.journal_rows import BUNDLE, made_row
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.watch_rows import made_reference

NOW_S = 1_900_000_000.0


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    return labelled_journal(tmp_path, labels={"per_day": 20})


def chosen(journal: LabelledJournal, *, now_s: float = NOW_S, labels: int | None = None, per_day: int = 20) -> Selected:
    with journal.open() as store:
        settings = SelectSettings(per_day=per_day)
        return choose(store, "digits", bundle=BUNDLE, settings=settings, now_s=now_s, labels=labels)


def test_every_new_row_is_considered_once_and_keeps_its_probability(journal: LabelledJournal) -> None:
    rows = journal.add_rows(100)
    first = chosen(journal, labels=10)
    assert (first.considered, len(first.chosen), first.left) == (100, 10, 10)
    found = journal.query("SELECT row, probability, chosen FROM considered ORDER BY row")
    assert [row for row, _, _ in found] == rows
    assert sum(probability for _, probability, _ in found) == pytest.approx(10)
    assert min(probability for _, probability, _ in found) >= 0.25 * 10 / 100
    assert [row for row, _, taken in found if taken] == sorted(first.chosen)
    assert journal.query("SELECT row, reason FROM asked ORDER BY row") == [
        (row, "chosen") for row in sorted(first.chosen)
    ]
    assert chosen(journal).considered == 0
    journal.add_rows(5)
    assert chosen(journal).considered == 5


def test_what_cannot_be_labelled_is_not_considered(journal: LabelledJournal) -> None:
    journal.add_rows(3, bundle="another")
    journal.add_rows(3, replayed_bundle="another")
    journal.add_rows(3, status=4)
    journal.add_rows(3, classifier="pets")
    journal.add([made_row("without an image")])
    assert chosen(journal).considered == 0


def test_the_budget_is_that_of_a_day_and_rows_wait_for_the_next_one(journal: LabelledJournal) -> None:
    journal.add_rows(50)
    assert chosen(journal).left == 0
    journal.add_rows(30)
    assert chosen(journal) == Selected(0, (), 0, "")
    with pytest.raises(SpecError, match="--labels 1: 0 of the 20 labels of the day"):
        chosen(journal, labels=1)
    tomorrow = chosen(journal, now_s=NOW_S + DAY_S)
    assert (tomorrow.considered, len(tomorrow.chosen)) == (30, 20)


def test_a_selection_by_a_clock_that_was_ahead_costs_no_other_day_its_budget(journal: LabelledJournal) -> None:
    journal.add_rows(50)
    chosen(journal, now_s=NOW_S + 400 * DAY_S)
    journal.add_rows(30)
    assert len(chosen(journal).chosen) == 20


def test_two_selections_at_once_consider_no_row_twice(journal: LabelledJournal) -> None:
    journal.add_rows(400)
    command = [sys.executable, "-m", "slipway", "labels", "select", str(journal.settings), "--labels", "5", "--json"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert journal.query("SELECT count(*), count(DISTINCT selection), sum(chosen) FROM considered") == [(400, 1, 5)]
    assert sum(b"400 rows considered" in out for out, _ in said) == 1
    assert sum(b"no new rows" in out for out, _ in said) == 1


def test_two_selections_of_one_millisecond_have_numbers_of_their_own(journal: LabelledJournal) -> None:
    for _ in range(3):
        journal.add_rows(5)
        chosen(journal, labels=1)
    assert journal.query("SELECT count(DISTINCT selection) FROM considered") == [(3,)]


def test_a_row_that_two_versions_answer_otherwise_stays_asked_for_that(journal: LabelledJournal) -> None:
    rows = journal.add_rows(5)
    with journal.open() as store:
        store.write("INSERT INTO asked VALUES (?, 'differs', 1.0)", [(rows[0],)])
    assert sorted(chosen(journal).chosen) == rows
    assert journal.query("SELECT reason FROM asked WHERE row = ?", rows[0]) == [("differs",)]


def test_a_network_without_an_embedding_has_doubt_and_chance_alone(journal: LabelledJournal) -> None:
    journal.add([made_row("a", embedding=None, sha256=None)])
    rows = [made_row(f"{place}", embedding=None, score=0.5 + place / 100) for place in range(40)]
    journal.add(rows)
    with journal.open() as store:
        store.write("UPDATE rows SET kept = 1 WHERE id > ?", [(1,)])
    found = chosen(journal, labels=10)
    assert (found.considered, len(found.chosen)) == (40, 10)
    assert "no embedding" in found.distances


def test_distances_are_from_the_reference_of_the_watch_where_it_is_there(journal: LabelledJournal) -> None:
    folder = journal.folder / "journal"
    made = made_reference(folder)
    path = folder / "watch/digits/reference.json"
    found = reference_means(folder, "digits", bundle=BUNDLE)
    assert found is not None
    assert made.class_means is not None
    np.testing.assert_array_equal(found.directions, made.class_means.directions)
    assert reference_means(folder, "digits", bundle="another") is None
    assert reference_means(folder, "pets", bundle=BUNDLE) is None
    journal.add_rows(30)
    done = journal.done("select", "--labels", "5")
    assert "30 rows considered, 5 chosen for labels; 15 of the 20 labels of the day (UTC) are left" in done.stdout
    assert "distances from the watch's reference" in done.stdout
    path.write_text(json.dumps({"bundle": BUNDLE, "means": {"centre": "?"}}))
    assert "slipway watch reference writes it again" in journal.done("select").stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repository": "nowhere"}, "is not a repository"),
        ({"observe": None}, "observe: not given"),
        ({"labels": {"explore": 0.8, "novelty": 0.5}}, "together must be at most 1"),
        ({"labels": {"label_studio": {"url": "http://example.com", "token_file": "t"}}}, "plain text; use https"),
        ({"labels": {"label_studio": {"url": "ftp://x", "token_file": "t"}}}, "write an address such as"),
        ({"labels": {"label_studio": {"token_file": "t", "project": "mine"}}}, "must contain {classifier}"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    journal = labelled_journal(tmp_path)
    text = journal.settings.read_text()
    journal.settings.write_text(dump_yaml(parse_yaml(text, source="test") | changes))
    done = journal.done("select")
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize("place", ["post_1/1", "heads_1/1/heads/digits"])
@pytest.mark.parametrize("verb", ["select", "push", "status"])
def test_a_classifier_with_several_labels_an_image_is_refused(journal: LabelledJournal, place: str, verb: str) -> None:
    step = journal.folder / "repository" / place
    step.mkdir(parents=True)
    (step / "decision.json").write_text('{"task": "multilabel", "thresholds": [0.5, 0.5], "top_k": 2}')
    (step / "bundle.txt").write_text(BUNDLE)
    assert "digits gives several labels for an image" in journal.done(verb).stderr
    (step / "bundle.txt").write_text("another")
    assert "several labels" not in journal.done(verb).stderr


def test_a_classifier_that_is_not_served_is_refused(journal: LabelledJournal) -> None:
    assert "'cats' is not in" in journal.done("select", "--classifier", "cats").stderr
