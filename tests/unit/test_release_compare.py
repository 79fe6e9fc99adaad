"""`slipway release compare`: images of the journal at the candidate, questions, and what the judge is told."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from slipway.client import Result
from slipway.client.errors import ClientError, GoneError, RequestError
from slipway.contract import ServingError, SpecError
from slipway.contract.dataset import Dataset, LabelledImage, Split
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal.store import Store, image_path, sha256_of
from slipway.operations.release import comparing, trial
from slipway.operations.release.disagreements import is_right
from slipway.operations.release.judge import judge
from slipway.operations.release.trial import Trial
from slipway.system.text import command
from tests.support.journal_rows import add_rows, made_row
from tests.support.releases import ReleaseFolder, tempered

LABELS = ("blue", "green", "red")
Say = Callable[[bytes], "str | ClientError | None"]


class Candidate:
    """The candidate's server: a label for an image, None for a refusal, or an error."""

    says: ClassVar[Say]
    asked: ClassVar[list[bytes]] = []
    bundle: ClassVar[str] = ""

    def __init__(self, *_: object, **__: object) -> None: ...

    def close(self) -> None: ...

    def classify_many(self, images: Sequence[bytes], *, full: bool, request_id: str) -> Iterator[Result]:
        assert full, "as the journal's replay asks"
        for image in images:
            Candidate.asked.append(image)
            said = Candidate.says(image)
            if isinstance(said, ClientError):
                yield Result(image, request_id, error=said)
            elif said is None:
                yield Result(image, request_id, status=2, bundle=Candidate.bundle)
            else:
                yield Result(image, request_id, status=0, label=said, score=0.8, class_id=0, bundle=Candidate.bundle)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseFolder:
    """An open release whose gateway keeps a journal; nothing runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trial, "answering", lambda *_: {})
    monkeypatch.setattr(comparing, "Client", Candidate)
    monkeypatch.setattr(comparing, "WAIT_S", 0.0)
    monkeypatch.setattr(comparing, "PAUSE_S", 0.0)
    made = ReleaseFolder(tmp_path, new=tempered(2.0), observe={})
    made.open_release()
    write_dataset(made)
    Candidate.asked, Candidate.bundle, Candidate.says = [], made.new.id, lambda _: "red"
    return made


def write_dataset(release: ReleaseFolder, splits: Mapping[bytes, Split] | None = None) -> None:
    """The data set of the candidate's bundle, with these images."""
    images = [
        LabelledImage(path="", class_ids=(0,), sha256=sha256_of(image), split=split)
        for image, split in (splits or {}).items()
    ]
    dataset = Dataset(root="", labels=LABELS, images=tuple(images))
    (release.folder / "runs/new/bundle/dataset.json").write_text(dataset.to_json())


def journal(release: ReleaseFolder, labels: Sequence[str | None], **changes: Any) -> list[int]:
    """Rows of `stable` with these answers; the image of row n is the text of n."""
    images = [str(number).encode() for number in range(len(labels))]
    values = {"classifier": "colours", "model": "colours", "bundle": release.old.id, **changes}
    rows = [
        made_row(f"{changes.get('arm', '')}{number}", **{"label": label, "sha256": sha256_of(image), **values})
        for number, (label, image) in enumerate(zip(labels, images, strict=True))
    ]
    with Store.of(read_settings(release.gateway), make=True) as store:
        return add_rows(store, rows, images=images)


def compare(release: ReleaseFolder, *words: str) -> None:
    release("compare", "--per-second", "10000", *words)


def table(release: ReleaseFolder, name: str) -> list[tuple[Any, ...]]:
    with Store.of(read_settings(release.gateway), make=False) as store:
        return store.query(f"SELECT * FROM {name} ORDER BY row")


def label(release: ReleaseFolder, said: dict[int, str], annotator: str = "ann") -> None:
    with Store.of(read_settings(release.gateway), make=False) as store:
        store.write(
            "INSERT INTO labels VALUES (?, ?, ?, 1.0)", [(row, annotator, answer) for row, answer in said.items()]
        )


def in_order(rows: Sequence[int]) -> list[int]:
    """The rows of `journal` in the order of their images' hashes, in which they count."""
    return sorted(rows, key=lambda row: sha256_of(str(rows.index(row)).encode()))


def remark(release: ReleaseFolder) -> str:
    (found,) = [one for one in Trial.open(release.gateway).judged().remarks if one.startswith("colours: ")]
    return found


def series(release: ReleaseFolder) -> Any:
    return Trial.open(release.gateway).judged().judgement.series[-1]


def test_only_rows_on_which_the_versions_differ_are_asked(
    release: ReleaseFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = journal(release, ["red", "blue", "red", "green"])
    Candidate.says = lambda image: None if image == b"3" else "red"
    compare(release, "--json")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["classifiers"]["colours"] == {
        **{"chosen": 4, "before": 0, "new": 4, "trained": 0, "gone": 0, "failed": 0, "asked": 2}
    }
    assert [(row, reason) for row, reason, _ in table(release, "asked")] == [(rows[1], "differs"), (rows[3], "differs")]
    assert [(row, status, said) for row, _, status, said, *_ in table(release, "compared")] == [
        *((row, 0, "red") for row in rows[:3]),
        (rows[3], 2, None),
    ]
    compare(release)
    assert len(Candidate.asked) == 4, "nothing is asked twice"
    assert "2 differ; 2 have the same answer and need no label" in capsys.readouterr().out


def test_the_series_is_there_without_labels_and_says_how_many_may_decide(release: ReleaseFolder) -> None:
    journal(release, ["blue"] * 12 + ["red"] * 4)
    said = series(release)
    assert (said.series, said.verdict) == ("disagreements", "too_few")
    assert "none compared" in said.reason
    compare(release)
    assert "12 that differ in 16 images: too few to tell; " in series(release).reason
    assert " more labels decide if each is won; 12 are missing" in series(release).reason


def test_labels_decide(release: ReleaseFolder) -> None:
    rows = in_order(journal(release, ["blue"] * 12))
    compare(release)
    label(release, dict.fromkeys(rows[:9], "red"))
    assert series(release).verdict == "fine"
    label(release, dict.fromkeys(rows, "green"), "bob")
    label(release, dict.fromkeys(rows, "green"), "eve")
    assert "0 lost and 0 won" in series(release).reason, "the majority says that neither is right"
    again = journal(release, ["blue"] * 60, arm="again")
    compare(release)
    assert "60 images compared, 60 differ" in remark(release), "an image that was sent again counts once"
    label(release, dict.fromkeys(again[12:], "blue"))
    assert "48 lost and 0 won of 60" in series(release).reason
    assert series(release).verdict == "worse"


def test_labels_count_up_to_the_first_image_without_one_whoever_chose_them(release: ReleaseFolder) -> None:
    rows = in_order(journal(release, ["blue"] * 12))
    label(release, dict.fromkeys(rows[2:], "red"))
    compare(release)
    label(release, {rows[0]: "red"})
    assert "0 lost and 1 won of 12" in series(release).reason
    assert f"10 more labels count once row {rows[1]} has one" in remark(release)
    label(release, {rows[1]: "blue"})
    assert "1 lost and 11 won of 12" in series(release).reason


def test_a_question_whose_image_is_gone_holds_nothing_up(release: ReleaseFolder) -> None:
    rows = in_order(journal(release, ["blue"] * 5))
    compare(release, "--ask", "2")
    with Store.of(read_settings(release.gateway), make=False) as store:
        store.write("UPDATE rows SET kept = 0 WHERE id = ?", [(row,) for row in rows[:2]])
    compare(release, "--ask", "2")
    assert {row for row, *_ in table(release, "asked")} == {*rows[:4]}
    label(release, dict.fromkeys(rows[2:], "red"))
    assert "0 lost and 3 won of 5" in series(release).reason
    said = r"no label is missing; ([\d,]+) more images decide if the versions differ in none of them"
    found = re.search(said, series(release).reason)
    assert found is not None
    trial = Trial.open(release.gateway)
    (tallied,) = trial.judged().tallies.items()
    told, settings = tallied[1].told(tallied[0]), trial.record.settings.judge
    needed = int(found[1].replace(",", ""))
    further = [
        replace(told, compared=told.compared + needed - 1),
        replace(told, compared=told.compared + needed),
        replace(told, compared=told.compared + 10, differing=told.differing + 10, won=told.won + 10),
    ]
    verdicts = [judge([], settings=settings, disagreements=[one]).series[-1].verdict for one in further]
    assert verdicts == ["too_few", "fine", "fine"]
    assert needed > 10, "images that differ and are won decide sooner"


def test_annotators_who_contradict_each_other_decide_nothing(release: ReleaseFolder) -> None:
    rows = journal(release, ["blue"] * 3)
    compare(release)
    label(release, dict.fromkeys(rows, "red"))
    label(release, dict.fromkeys(rows, "blue"), "bob")
    assert "annotators are divided on 3" in remark(release)
    assert "0 lost and 0 won of 3" in series(release).reason


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [("red", "red", True), ("red", "blue", False), ("unknown", "car", True), ("unknown", "red", False)],
)
def test_unknown_is_right_for_what_the_candidate_has_no_class_for(answer: str, truth: str, right: bool) -> None:
    assert is_right(answer, truth, classes=LABELS) is right
    assert not is_right(None, truth, classes=LABELS)


def test_the_latest_row_of_each_kept_image_is_compared(release: ReleaseFolder) -> None:
    old = journal(release, ["red"] * 5)
    new = journal(release, ["red"] * 2, arm="candidate")
    journal(release, ["red"] * 3, arm="odd", parity="differs")
    settings = read_settings(release.gateway)
    image_path(settings.journal, sha256_of(b"4")).unlink()
    compare(release, "--images", "4")
    assert [row for row, *_ in table(release, "compared")] == [old[3], *new]


def test_a_damaged_image_is_not_compared(release: ReleaseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    rows = journal(release, ["blue"] * 2)
    image_path(read_settings(release.gateway).journal, sha256_of(b"0")).write_bytes(b"")
    compare(release)
    assert "1 images were removed meanwhile, or are damaged" in capsys.readouterr().out
    assert [row for row, *_ in table(release, "compared")] == rows[1:]


def test_images_that_the_candidate_was_trained_on_show_nothing(release: ReleaseFolder) -> None:
    rows = journal(release, ["red"] * 3)
    write_dataset(release, {b"0": "train", b"1": "test"})
    compare(release)
    assert [row for row, *_ in table(release, "compared")] == rows[1:]


def test_a_candidate_that_nobody_knows_the_training_of_is_not_compared(release: ReleaseFolder) -> None:
    journal(release, ["red"] * 3)
    dataset = release.folder / "runs/new/bundle/dataset.json"
    dataset.write_text("{")
    with pytest.raises(SpecError, match=r"dataset\.json"):
        compare(release, "--training-unknown")
    dataset.unlink()
    with pytest.raises(SpecError, match=r"has no dataset\.json, .* --training-unknown"):
        compare(release)
    compare(release, "--training-unknown")
    assert len(table(release, "compared")) == 3
    shutil.copytree(release.folder / "runs/old/bundle", dataset.parent, dirs_exist_ok=True)
    again = re.escape(command("slipway release candidate", release.gateway, release.fleet))
    with pytest.raises(SpecError, match=f"but the candidate is .* its training images are unknown: .*: {again}"):
        compare(release, "--training-unknown")


def test_a_labelled_row_is_no_question_and_few_questions_are_open_at_once(release: ReleaseFolder) -> None:
    rows = in_order(journal(release, ["blue"] * 9))
    label(release, {rows[0]: "red"})
    compare(release, "--ask", "3")
    first = [row for row, *_ in table(release, "asked")]
    assert len(first) == 3
    assert rows[0] not in first
    compare(release, "--ask", "3")
    assert len(table(release, "asked")) == 3
    label(release, {rows[1]: "red"})
    compare(release, "--ask", "3")
    assert len(table(release, "asked")) == 4
    assert "0 lost and 2 won" in series(release).reason


def test_a_candidate_that_dies_leaves_what_is_compared_and_the_next_call_goes_on(release: ReleaseFolder) -> None:
    journal(release, ["blue"] * 6)
    Candidate.says = lambda _: GoneError("the connection was lost") if len(Candidate.asked) > 4 else "red"
    with pytest.raises(ServingError, match=r"does not answer: the connection was lost; .* run the same command again"):
        compare(release)
    assert len(table(release, "compared")) == 4
    Candidate.says = lambda _: "red"
    compare(release)
    assert len(table(release, "compared")) == 6
    assert len(Candidate.asked) == 7


def test_an_error_of_one_image_is_counted_and_not_kept(
    release: ReleaseFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    journal(release, ["blue"] * 3)
    Candidate.says = lambda image: RequestError("injected") if image == b"1" else "blue"
    compare(release)
    assert "1 images got an error and are not compared" in capsys.readouterr().out
    assert len(table(release, "compared")) == 2


def test_another_bundle_at_the_candidate_s_port_is_refused(release: ReleaseFolder) -> None:
    journal(release, ["blue"])
    Candidate.bundle = release.old.id
    with pytest.raises(ServingError, match=r"answers with bundle .*, and not with"):
        compare(release)
    assert table(release, "compared") == []


def test_without_rows_or_a_journal_there_is_a_remedy(release: ReleaseFolder) -> None:
    collect = command("slipway journal run", release.gateway)
    with pytest.raises(SpecError, match=f"no journal; {re.escape(collect)} makes one"):
        compare(release)
    assert f"no journal yet; {collect} makes one" in Trial.open(release.gateway).judged().unread
    journal(release, ["red"], bundle="another")
    with pytest.raises(SpecError, match=f"keeps no image that stable bundle .* let {re.escape(collect)} collect some"):
        compare(release)
    text = release.gateway.read_text().replace("observe:", "#").replace("observe", "#")
    release.gateway.write_text(text)
    with pytest.raises(SpecError, match="observe: not given"):
        compare(release)
    found = Trial.open(release.gateway).judged()
    assert [one.series for one in found.judgement.series] == ["errors"]
    assert "keeps no journal" in found.unread


def test_a_journal_that_cannot_be_read_lets_nothing_pass(release: ReleaseFolder) -> None:
    journal(release, ["red"])
    folder = read_settings(release.gateway).journal
    shutil.rmtree(folder / "images")
    (folder / "journal.sqlite").write_bytes(b"not a database" * 100)
    found = Trial.open(release.gateway).judged()
    assert "the journal cannot be read" in found.unread
    assert found.judgement.series[-1].verdict == "too_few"


def test_a_comparison_goes_with_its_row(release: ReleaseFolder) -> None:
    rows = journal(release, ["blue"])
    compare(release)
    path = read_settings(release.gateway).journal / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM rows WHERE id = ?", (rows[0],))
    assert table(release, "compared") == table(release, "asked") == []
