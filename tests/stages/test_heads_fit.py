"""Heads are fitted to embeddings as scikit-learn would fit them, and embeddings are kept from one run to the next."""

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from slipway.contract import Spec
from slipway.contract.dataset import LabelledImage
from slipway.training.heads.embeddings import Cache
from slipway.training.heads.fit import IMAGES, STRENGTHS, Fitter
from tests.support.damage import flip_byte

SIZE = 12
KEYS = ["a" * 64, "b" * 64]
VECTORS = {key: np.arange(SIZE, dtype=np.float32) + row for row, key in enumerate(KEYS)}


def spec(**changes: Any) -> Spec:
    text = {
        "name": "shades",
        "data": {"root": "data"},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": "by-hand"},
    }
    return Spec.parse(text | changes, source="test")


def images_of(labels: Sequence[Sequence[int]]) -> list[LabelledImage]:
    return [
        LabelledImage(path=f"{row}.png", class_ids=tuple(ids), sha256=str(row), split="train")
        for row, ids in enumerate(labels)
    ]


def clusters(class_ids: Sequence[int], *, noise: float = 1.0, size: int = SIZE) -> np.ndarray:
    """Embeddings around a centre for each class, of numbers that differ a thousandfold in size."""
    rng = np.random.default_rng(0)
    centres_cd = rng.normal(size=(max(class_ids) + 1, size))
    scale_d = np.geomspace(0.1, 100, size)
    found_nd = (centres_cd[list(class_ids)] + noise * rng.normal(size=(len(class_ids), size)) + 5) * scale_d
    return found_nd.astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("size", [SIZE, 200])
def test_a_linear_head_is_scikit_learn_s_behind_its_scaler(classes: int, size: int) -> None:
    class_ids = [row % classes for row in range(60)]
    embedding_nd = clusters(class_ids, size=size)
    fitter = Fitter(spec(), images_of([[c] for c in class_ids]), classes=classes)
    head = fitter.fit(embedding_nd, strength=0.1)
    scaled_nd = StandardScaler().fit_transform(embedding_nd.astype(np.float64))
    least = 0.1 * np.sqrt(np.square(embedding_nd.std(axis=0, dtype=np.float64)).mean())
    scaled_nd *= np.minimum(1, embedding_nd.std(axis=0, dtype=np.float64) / least)
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(scaled_nd, class_ids).predict_proba(scaled_nd)
    logits_nc = head.run(embedding_nd)
    found = np.exp(logits_nc) / np.exp(logits_nc).sum(axis=1, keepdims=True)
    assert head.embedding_size == size
    assert found == pytest.approx(expected, abs=5e-3)


def test_the_strength_with_the_least_loss_of_left_out_images_is_chosen() -> None:
    class_ids = [row % 3 for row in range(90)]
    embedding_nd, images = clusters(class_ids, noise=2.0), images_of([[c] for c in class_ids])
    chosen = Fitter(spec(), images, classes=3).choose(embedding_nd)
    assert chosen == Fitter(spec(), images, classes=3).choose(embedding_nd)
    assert (chosen.folds, chosen.images) == (5, 90)
    assert chosen.log_loss[f"{chosen.strength:g}"] == min(chosen.log_loss.values())
    assert STRENGTHS["linear"][0] < chosen.strength
    assert list(chosen.log_loss) == [f"{s:g}" for s in STRENGTHS["linear"]][: len(chosen.log_loss)]


def test_a_class_with_one_image_leaves_nothing_to_cross_validate() -> None:
    class_ids = [0] * 10 + [1] * 10 + [2]
    chosen = Fitter(spec(), images_of([[c] for c in class_ids]), classes=3).choose(clusters(class_ids))
    assert (chosen.folds, chosen.images, chosen.log_loss) == (0, 0, {})


def test_a_large_class_does_not_crowd_the_others_out_of_the_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMAGES, "linear", 40)
    class_ids = [0] * 300 + [1] * 12
    chosen = Fitter(spec(), images_of([[c] for c in class_ids]), classes=2).choose(clusters(class_ids))
    assert (chosen.folds, chosen.images) == (5, 40)


@pytest.mark.parametrize("recipe", [{"balance": "equal"}, {"loss": {"class_weights": "inverse_frequency"}}])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_rare_class_is_found_more_often_with_weights(recipe: dict[str, Any], kind: str) -> None:
    class_ids = [0] * 90 + [1] * 6
    embedding_nd, images = clusters(class_ids, noise=3.0), images_of([[c] for c in class_ids])
    head = {"head": {"kind": kind, "units": 8}}
    plain, weighted = (
        Fitter(spec(recipe=head | more), images, classes=2).fit(embedding_nd, strength=0.01).run(embedding_nd)
        for more in ({}, recipe)
    )
    assert (weighted[90:].argmax(axis=1) == 1).sum() > (plain[90:].argmax(axis=1) == 1).sum()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_of_several_labels_answers_each_by_itself(kind: str) -> None:
    labels = [[0], [1], [0, 1], []] * 15
    class_ids = [2 * (1 in ids) + (0 in ids) for ids in labels]
    fitter = Fitter(spec(task="multilabel", recipe={"head": {"kind": kind, "units": 16}}), images_of(labels), classes=2)
    embedding_nd = clusters(class_ids, noise=0.1)
    chosen = fitter.choose(embedding_nd)
    logits_nc = fitter.fit(embedding_nd, strength=chosen.strength).run(embedding_nd)
    assert (logits_nc > 0).tolist() == [[0 in ids, 1 in ids] for ids in labels]


def test_a_label_of_every_image_is_as_likely_as_that() -> None:
    labels = [[0, 1], [0]] * 10
    fitter = Fitter(spec(task="multilabel"), images_of(labels), classes=2)
    embedding_nd = clusters([len(ids) for ids in labels])
    logits_nc = fitter.fit(embedding_nd, strength=1.0).run(embedding_nd)
    assert logits_nc[:, 0] == pytest.approx(np.full(20, np.log(21)))


def test_embeddings_that_are_all_equal_give_a_head_of_equal_answers() -> None:
    class_ids = [0, 1] * 10
    fitter = Fitter(spec(), images_of([[c] for c in class_ids]), classes=2)
    embedding_nd = np.ones((20, SIZE), np.float32)
    logits_nc = fitter.fit(embedding_nd, strength=1.0).run(embedding_nd)
    assert np.ptp(logits_nc) == pytest.approx(0, abs=1e-3)


def test_what_was_kept_is_read_again_by_another_process(tmp_path: Path) -> None:
    Cache(tmp_path / "kept/e.sqlite", size=SIZE, decoder="cpu").read(KEYS)
    Cache(tmp_path / "kept/e.sqlite", size=SIZE, decoder="cpu").write(VECTORS)
    Cache(tmp_path / "kept/e.sqlite", size=SIZE, decoder="cpu").write(VECTORS)
    found = Cache(tmp_path / "kept/e.sqlite", size=SIZE, decoder="cpu").read([*KEYS, "c" * 64])
    assert {key: row.tolist() for key, row in found.items()} == {key: row.tolist() for key, row in VECTORS.items()}


def test_another_version_of_a_library_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(tmp_path / "e.sqlite", size=SIZE, decoder="cpu").write(VECTORS)
    monkeypatch.setattr("slipway.training.heads.embeddings.versions", lambda _: {"openvino": "0.1"})
    assert Cache(tmp_path / "e.sqlite", size=SIZE, decoder="cpu").read(KEYS) == {}


def test_the_file_of_another_engine_is_not_taken_for_this_one(tmp_path: Path) -> None:
    Cache(tmp_path / "other.sqlite", size=SIZE, decoder="cpu").write(VECTORS)
    shutil.copyfile(tmp_path / "other.sqlite", tmp_path / "e.sqlite")
    assert Cache(tmp_path / "e.sqlite", size=SIZE, decoder="cpu").read(KEYS) == {}


def damage_page(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flip(path: Path) -> None:
    flip_byte(path, path.read_bytes().index(VECTORS[KEYS[1]].tobytes()) + 7)


def shorten(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE kept SET embedding = x'00'")
    database.close()


def nothing(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE kept SET embedding = NULL, checksum = 'x'")
    database.close()


@pytest.mark.parametrize("damage", [damage_page, cut, flip, shorten, nothing])
def test_a_damaged_file_is_named_and_written_anew(
    tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.sqlite"
    Cache(path, size=SIZE, decoder="cpu").write(VECTORS)
    damage(path)
    cache = Cache(path, size=SIZE, decoder="cpu")
    assert cache.read(KEYS) == {}
    assert f"{path}: damaged (" in capsys.readouterr().err
    cache.write(VECTORS)
    assert len(Cache(path, size=SIZE, decoder="cpu").read(KEYS)) == len(KEYS)
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("a file where the folder would be")
    cache = Cache(tmp_path / "kept/e.sqlite", size=SIZE, decoder="cpu")
    assert cache.read(KEYS) == {}
    cache.write(VECTORS)
    said = capsys.readouterr().err
    assert said.count("embeddings are not kept: ") == 1
    assert (tmp_path / "kept").is_file()


def test_another_process_that_writes_for_too_long_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("slipway.training.heads.embeddings.BUSY_S", 0.01)
    cache = Cache(tmp_path / "e.sqlite", size=SIZE, decoder="cpu")
    cache.write({KEYS[0]: VECTORS[KEYS[0]]})
    other = sqlite3.connect(tmp_path / "e.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.write(VECTORS)
    other.close()
    assert "embeddings are not kept: database is locked" in capsys.readouterr().err
    assert list(cache.read(KEYS)) == [KEYS[0]]
