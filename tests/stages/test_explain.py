"""`slipway explain`: one page on one row of the journal, and what is missing is told."""

import json
import re
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from slipway.contract import Bundle, ManifestError, SpecError
from slipway.contract.base_bundle import Base
from slipway.contract.dataset import Dataset
from slipway.engines.base_engines import run_of
from slipway.evaluation.predict import predict, predict_served
from slipway.operations.labels.explained import read_row
from slipway.repository.fleet import open_base
from slipway.steps.engine_openvino import Engine
from slipway.steps.head import Head
from slipway.system.text import command
from slipway.training.bundle.base import network_of
from slipway.training.bundle.grad_cam import BaseWithHead, grad_cams_of_head
from tests.support.coloured_runs import coloured_run
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.scripts import run_here
from tests.support.shades import base_with_int8, write_colours
from tests.support.small_training import BASE_SIDE, base_text, one_thread, write_digits, write_weights


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return coloured_run(tmp_path_factory.mktemp("run"), images=20)


@pytest.fixture
def journal(tmp_path: Path) -> LabelledJournal:
    return labelled_journal(tmp_path, classes=("blue", "green", "red"), classifier="colours")


def answered(journal: LabelledJournal, bundle: Bundle, base: Path | None = None) -> tuple[int, str]:
    """A row of a training image, and the image's path.

    Args:
        base: the run of the base, if the bundle is a head.
    """
    dataset = Dataset.read(bundle.path / "dataset.json")
    image = dataset.of("train")[0]
    options: dict[str, Any] = {"preprocess": bundle.preprocess, "batch_size": 1, "what": "test"}
    if base is None:
        engine = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=1)
        found = predict(engine.run, dataset, [image], **options)
    else:
        found = predict_served(run_of(open_base(base).engine, threads=1), dataset, [image], **options)
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


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/three`, a head of three digits, and `runs/tiny`, its base, of `weights.safetensors`."""
    folder = tmp_path_factory.mktemp("head")
    images, weights = write_digits(folder / "images"), write_weights(folder / "weights.safetensors")
    backbone = {"name": "resnet10t", "weights": str(weights)}
    base = base_text(images=str(images), backbone=backbone, precisions=["fp32"])
    (folder / "tiny.yaml").write_text(yaml.safe_dump(base))
    (folder / "three.yaml").write_text(yaml.safe_dump({"name": "three", "data": {"root": str(images)}}))
    with one_thread():
        run_here("base", "tiny.yaml", cwd=folder)
        run_here("head", "three.yaml", "--base", "runs/tiny", cwd=folder)
    return folder


def test_a_row_of_a_head_has_training_images_and_grad_cam_by_its_base(
    journal: LabelledJournal, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, base = head / "runs/three", head / "runs/tiny"
    row, path = answered(journal, Bundle.open(run / "bundle"), base)
    monkeypatch.setattr("slipway.training.heads.embeddings.pixel_batches", lambda *_, **__: pytest.fail("decoded"))
    page, said = explained(journal, row, "--run", run, "--base", base, "--json")
    told = json.loads(said.splitlines()[-1])
    assert told["near"][0] == path
    assert len(told["near"]) == 8
    assert told["heat"] == ["0", "1"]
    assert "speak for the label below, by Grad-CAM at layer2" in page
    assert page.count("<img ") == 1 + 2 + 8


def test_the_network_of_a_base_and_a_head_answers_as_they_do(head: Path) -> None:
    base, rng = Base.open(head / "runs/tiny/base"), np.random.default_rng(0)
    sizes = (512, 8, 3)
    layers = [rng.normal(size=size).astype(np.float32) for size in pairwise(sizes)]
    mlp = Head(layers, [rng.normal(size=size).astype(np.float32) for size in sizes[1:]])
    pixels_nchw = rng.normal(size=(2, 3, BASE_SIDE, BASE_SIDE)).astype(np.float32)
    embedding_nd = Engine(base.path / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw)[1]
    with torch.no_grad():
        whole = BaseWithHead(network_of(base.spec, base.preprocess)[0], mlp)
        logits_nc, found_nd = whole(torch.from_numpy(pixels_nchw))
    np.testing.assert_allclose(found_nd.numpy(), embedding_nd, atol=1e-3)
    expected_nc = mlp.run(embedding_nd)
    np.testing.assert_allclose(logits_nc.numpy(), expected_nc, atol=1e-3 * float(np.abs(expected_nc).max()))


def test_other_weights_than_those_of_the_base_are_not_looked_through(head: Path, tmp_path: Path) -> None:
    bundle, base = Bundle.open(head / "runs/three/bundle"), Base.open(head / "runs/tiny/base")
    for given in (write_weights(tmp_path / "other.safetensors", seed=8), tmp_path / "none.safetensors"):
        backbone = base.spec.backbone.model_copy(update={"weights": str(given)})
        other = replace(base, spec=base.spec.model_copy(update={"backbone": backbone}))
        with pytest.raises(ManifestError, match=f"{given}: missing, or not the weights that .*runs/tiny/base was made"):
            grad_cams_of_head(bundle, other, [])


def test_the_engine_that_serves_a_head_embeds_its_training_images(
    journal: LabelledJournal, bundle: Bundle, head: Path, tmp_path: Path
) -> None:
    base = base_with_int8(tmp_path / "base")
    accuracy = {"max_loss_points": 40, "max_class_loss_points": 100, "max_flip_points": 60, "prove_classes": False}
    spec = {"name": "shades", "data": {"root": str(write_colours(tmp_path / "data"))}, "accuracy": accuracy}
    (tmp_path / "shades.yaml").write_text(yaml.safe_dump(spec))
    run_here("head", "shades.yaml", "--base", "base", cwd=tmp_path)
    run = tmp_path / "runs/shades"
    row, path = answered(journal, Bundle.open(run / "bundle"), base)
    page, said = explained(journal, row, "--run", run, "--base", base)
    assert page.index(f'title="{path}"') < page.index("<small>blue: 1.000</small>"), "FP32's embeddings are far away"
    assert "No Grad-CAM: " in said
    assert "its spec names no file of weights" in said
    _, said = explained(journal, row, "--run", run)
    assert "No training images: give the run of the head's base, tiny, with --base." in said
    assert "No Grad-CAM: give the run of the head's base, tiny, with --base." in said
    words = ("explain", journal.settings, str(row), "--base")
    done = run_here(*words, head / "runs/tiny", "--run", run, cwd=journal.folder, check=False)
    assert "shades/bundle is a head of tiny, " in done.stderr
    row, _ = answered(journal, bundle)
    words = ("explain", journal.settings, str(row), "--base")
    for more in ((), ("--run", bundle.path.parent)):
        done = run_here(*words, base, *more, cwd=journal.folder, check=False)
        assert "goes with the run of a head, which --run gives; leave --base out" in done.stderr
