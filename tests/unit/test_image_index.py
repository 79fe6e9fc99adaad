"""The index of a folder's embeddings: written whole, and its neighbours are those that a sort by hand finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slipway.client import RequestError, Result
from slipway.client.image_index import EMBEDDINGS, ImageIndex
from slipway.errors import ManifestError, SpecError
from tests.support.scripts import run_here


def result(embedding: object, *, status: int = 0, bundle: str = "b" * 64) -> Result:
    array = None if embedding is None else np.asarray(embedding, np.float32)
    return Result(b"", "id", status=status, bundle=bundle, embedding=array)


ROWS = np.random.default_rng(0).normal(loc=2, size=(50, 16)).astype(np.float32)


def random_index() -> ImageIndex:
    answers = [(f"{number}.jpg", result(row)) for number, row in enumerate(ROWS)]
    return ImageIndex.of(answers, model="pets", folder=Path("photographs"))


def test_the_most_similar_images_are_those_of_a_sort_by_hand() -> None:
    index = random_index()
    asked_d = np.random.default_rng(1).normal(loc=2, size=16).astype(np.float32)
    centred_nd = index.embedding_nd - index.embedding_nd.mean(axis=0)
    query_d = asked_d - index.embedding_nd.mean(axis=0)
    cosine_n = centred_nd @ query_d / np.linalg.norm(centred_nd, axis=1) / np.linalg.norm(query_d)
    expected = np.argsort(-cosine_n)[:7]
    matches = index.like(asked_d, count=7)
    assert [match.file for match in matches] == [f"{row}.jpg" for row in expected]
    assert [match.similarity for match in matches] == pytest.approx(cosine_n[expected].tolist(), abs=1e-5)
    assert len(index.like(asked_d, count=1000)) == 50


def test_an_indexed_image_is_most_like_itself() -> None:
    index = random_index()
    (match,) = index.like(index.embedding_nd[17], count=1)
    assert (match.file, match.similarity) == ("17.jpg", pytest.approx(1, abs=1e-5))


def test_near_duplicates_are_grouped_and_all_others_are_not() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    rows[3] = rows[8]
    rows[12], rows[15] = rows[5] * 1.001, rows[5] + 0.001
    answers = [(f"{number}.jpg", result(row)) for number, row in enumerate(rows)]
    index = ImageIndex.of(answers, model="pets", folder=Path("photographs"))
    groups = index.duplicates(least=0.99)
    assert sorted(sorted(match.file for match in group) for group in groups) == [
        ["12.jpg", "15.jpg", "5.jpg"],
        ["3.jpg", "8.jpg"],
    ]
    assert all(match.similarity >= 0.99 for group in groups for match in group)
    assert index.duplicates(least=1.0) in ([], [groups[0]]), "of FP32, even equal ones may be 1e-7 apart"


def test_an_index_is_read_as_it_was_written_and_replaces_only_an_index(tmp_path: Path) -> None:
    index = random_index()
    index.write(tmp_path / "index")
    index.write(tmp_path / "index")
    read = ImageIndex.open(tmp_path / "index")
    assert read.settings == index.settings
    assert (read.embedding_nd == index.embedding_nd).all()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(SpecError, match="not empty"):
        index.write(tmp_path / "mine")


DAMAGES = {
    "empty": b"",
    "cut": b"\x93NUMPY",
    "fewer rows": np.zeros((3, 16), np.float32),
    "no columns": ROWS[:, :0],
    "text": ROWS.astype("U9"),
    "complex numbers": ROWS.astype(np.complex64),
    "NaN": np.where(ROWS[2, 3] == ROWS, np.float32(np.nan), ROWS),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_refused_by_its_file(damage: "bytes | NDArray[Any]", tmp_path: Path) -> None:
    random_index().write(tmp_path / "index")
    if isinstance(damage, bytes):
        (tmp_path / "index" / EMBEDDINGS).write_bytes(damage)
    else:
        np.save(tmp_path / "index" / EMBEDDINGS, damage)
    with pytest.raises(ManifestError, match=r"embeddings\.npy: .*build"):
        ImageIndex.open(tmp_path / "index")
    with pytest.raises(ManifestError, match="build an index with slipway index build"):
        ImageIndex.open(tmp_path)


def test_images_without_an_answer_are_left_out_by_name() -> None:
    answers = [
        ("a.jpg", result([1, 2])),
        ("b.gif", result([0, 0], status=1)),
        ("c.jpg", Result(b"", "id", error=RequestError("too late"))),
        ("d.jpg", result([2, 1])),
        ("e.jpg", result([2, np.nan])),
    ]
    index = ImageIndex.of(answers, model="pets", folder=Path("photographs"))
    assert index.settings.files == ("a.jpg", "d.jpg")
    assert index.settings.skipped.keys() == {"b.gif", "c.jpg", "e.jpg"}
    assert index.settings.skipped["c.jpg"] == "too late"


def test_what_cannot_be_an_index_is_refused_with_the_reason() -> None:
    folder = Path("photographs")
    with pytest.raises(SpecError, match="pets has no embedding"):
        ImageIndex.of([("a.jpg", result(None))], model="pets", folder=folder)
    with pytest.raises(SpecError, match=r"1 image\(s\) with an embedding; an index needs two"):
        ImageIndex.of([("a.jpg", result([1, 2]))], model="pets", folder=folder)
    both = [("a.jpg", result([1, 2])), ("b.jpg", result([2, 1], bundle="c" * 64))]
    with pytest.raises(SpecError, match="another bundle answered while the folder was read"):
        ImageIndex.of(both, model="pets", folder=folder)


def test_folders_without_an_image_and_folders_for_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    random_index().write(tmp_path / "index")
    for words, said in {
        "build empty --model pets --out other": "empty: no image in it; an index needs two",
        "like index empty": "empty is a folder; give images",
    }.items():
        done = run_here("index", *words.split(), cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert said in done.stderr
    assert not (tmp_path / "other").exists()


def test_an_index_of_another_base_is_noticed_by_one_of_its_images() -> None:
    index = random_index()
    index.check_same_space(index.embedding_nd[3] * np.float32(1.0001), 3)
    for other in (index.embedding_nd[4], np.ones(8, np.float32)):
        with pytest.raises(SpecError, match=r"3\.jpg: another embedding than in the index.*build it again"):
            index.check_same_space(other, 3)
