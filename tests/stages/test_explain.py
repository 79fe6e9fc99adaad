"""`slipway explain`: one page on one row of the journal, and what is missing is told."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, SpecError
from slipway.contract.dataset import Dataset
from slipway.evaluation.predict import predict
from slipway.operations.labels.explained import read_row
from slipway.steps.engine_openvino import Engine
from slipway.system.text import command
from tests.support.coloured_runs import coloured_run
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.scripts import run_here


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return coloured_run(tmp_path_factory.mktemp("run"), images=20)


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    return labelled_journal(tmp_path, classes=("blue", "green", "red"), classifier="colours")


def answered(journal: LabelledJournal, bundle: Bundle) -> tuple[int, str]:
    """A row of a training image, and the image's path."""
    dataset = Dataset.read(bundle.path / "dataset.json")
    image = dataset.of("train")[0]
    engine = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=1)
    found = predict(engine.run, dataset, [image], preprocess=bundle.preprocess, batch_size=1, what="test")
    (row,) = journal.add_images(
        [dataset.load(image)],
        **{"classifier": "colours", "bundle": bundle.id, "replayed_bundle": bundle.id, "label": "<b>blue"},
        **{"class_id": 0, "score": 0.9, "probability": np.array([0.9, 0.06, 0.04], np.float32)},
        embedding=found.embedding_nd[0],
    )
    return row, image.path


def explained(journal: LabelledJournal, *words: object) -> tuple[str, str]:
    """The page and what was said."""
    out = journal.folder / "page.html"
    arguments = (str(journal.settings), *map(str, words), "--out", str(out))
    said = run_here("explain", *arguments, cwd=journal.folder).stdout
    return out.read_text(), said


def test_the_page_has_the_image_and_the_training_images_like_it(journal: LabelledJournal, bundle: Bundle) -> None:
    row, path = answered(journal, bundle)
    page, said = explained(journal, row, "--run", bundle.path.parent)
    assert "&lt;b&gt;blue" in page
    assert (journal.folder / "page.html").stat().st_mode & 0o777 == 0o600, "it holds an image of the journal"
    assert "<b>blue" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img ") == 1 + 8
    assert page.index(f'title="{path}"') < page.index("<small>blue: 1.000</small>")
    assert said.startswith(f"{bundle.path}: embedding training images\n"), "before what takes long"
    assert "No Grad-CAM: the bundle was not exported from a checkpoint" in said
    assert "No Grad-CAM" in page


def test_without_a_run_and_without_the_image_the_rest_is_there(journal: LabelledJournal, bundle: Bundle) -> None:
    row, _ = answered(journal, bundle)
    page, said = explained(journal, row)
    assert "No training images: give the run" in said
    assert "0.9000" in page
    shutil.rmtree(journal.folder / "journal/images")
    page, said = explained(journal, row, "--run", bundle.path.parent)
    assert "No image: it is no longer kept" in page
    assert "No Grad-CAM: the image is no longer kept." in said


def test_a_refused_image_and_a_row_that_is_not_there_are_told(journal: LabelledJournal, bundle: Bundle) -> None:
    (row,) = journal.add_rows(1, status=3, label=None, probability=None, embedding=None, score=None, class_id=None)
    with journal.open() as store:
        store.write("UPDATE rows SET kept = 0, sha256 = NULL WHERE id = ?", [(row,)])
    page, _ = explained(journal, row)
    assert "The image was refused, and nothing was classified: corrupt (STATUS 3)." in page
    assert "No image: refused images are not kept" in page
    assert "No training images: the image was refused." in page
    done = run_here("explain", str(journal.settings), "99", cwd=journal.folder, check=False)
    last = command("slipway journal rows", journal.settings)
    assert f"row 99 is not in the journal; {last} shows the last ones" in done.stderr
    done = run_here(
        "explain", str(journal.settings), str(row), "--run", str(bundle.path.parent), cwd=journal.folder, check=False
    )
    assert "give the run of that bundle" in done.stderr


def test_a_row_that_is_forgotten_while_it_is_read_is_told_as_it_was(
    journal: LabelledJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = journal.add_rows(1, classifier="colours")
    with journal.open() as store:
        query = store.query

        def forgotten_after(*words: Any) -> list[tuple[Any, ...]]:
            found = query(*words)
            store.forget(str(row))
            return found

        monkeypatch.setattr(store, "query", forgotten_after)
        assert read_row(store, row).facts["probability of being in the journal"] == "1"
        with pytest.raises(SpecError, match="not in the journal"):
            read_row(store, row)


def test_unknown_no_label_and_divided_annotators_are_said_in_words(journal: LabelledJournal) -> None:
    (row,) = journal.add_rows(1, label="unknown", class_id=-1, score=0.41, classifier="colours")
    (none,) = journal.add_rows(1, label="", class_id=-1, score=0.0, probability=None, classifier="colours")
    with journal.open() as store:
        chances = np.array([0.3, 0.41, 0.29], "<f4").tobytes()
        store.write("UPDATE rows SET probability = ? WHERE id = ?", [(chances, row)])
        store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", [(row, "ann", "red"), (row, "bob", "green")])
    page, said = explained(journal, row)
    assert "The answer was unknown: green with a probability of 0.4100 is likeliest" in said
    assert "The annotators are divided, so that no label counts." in page
    assert "time of the request" in page
    assert "the same image got the same answer again" in page
    with journal.open() as store:
        store.write("INSERT INTO labels VALUES (?, 'known answer', 'red', 1.0)", [(row,)])
    assert "The label that counts is red, and the classifier answered unknown." in explained(journal, row)[0]
    assert "The answer was no label: none is over its threshold." in explained(journal, none)[1]


def test_without_torch_everything_but_grad_cam_is_there(
    journal: LabelledJournal, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = answered(journal, bundle)
    monkeypatch.setattr("slipway.cli.explain._why_not_looked", lambda *_: "")
    monkeypatch.setitem(sys.modules, "slipway.training.bundle.grad_cam", None)
    page, said = explained(journal, row, "--run", bundle.path.parent)
    assert "No Grad-CAM: import of slipway.training.bundle.grad_cam halted" in said
    assert page.count("<img ") == 9
