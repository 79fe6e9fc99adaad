"""Cross-validated predictions, the labels that they contradict, and the table that is left."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax

from slipway.contract import DataError, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.evaluation.fit_decision import fit_temperature
from slipway.training.data.dataset import scan
from slipway.training.search import cross_validation
from slipway.training.search.cross_validation import OutOfFold, cross_validate, fit_noisy_temperature, write_table
from slipway.training.search.label_errors import (
    PAGE,
    RESULT,
    SUSPECTS,
    LabelErrors,
    find_label_errors,
    suspects,
    write_clean,
)
from tests.support.colour_training import EACH, small_spec, write_colours
from tests.support.report_builds import Page
from tests.support.scripts import refused, run_here

LABELS = ("cat", "dog", "owl")
WRONG = "blue/03.png"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LabelErrors]:
    """A run on two colours, of which one file lies in the wrong folder: `red/99.png` is blue."""
    folder = tmp_path_factory.mktemp("noisy")
    root = write_colours(folder / "data")
    (root / WRONG).rename(root / "red/99.png")
    spec = small_spec(root, recipe={"epochs": 4})
    return folder, find_label_errors(spec, folder / "out", folds=2, seed=0)


def test_a_file_in_the_wrong_folder_is_the_first_suspect(found: tuple[Path, LabelErrors]) -> None:
    folder, errors = found
    assert errors.images == 2 * EACH
    worst = errors.suspects[0]
    assert (worst.path, worst.given, worst.suggested) == ("red/99.png", ("red",), ("blue",))
    assert worst.probability["blue"] > 0.5 > worst.probability["red"]
    assert worst.quality == pytest.approx(worst.probability["red"], abs=1e-5)
    assert LabelErrors.read(folder / "out" / RESULT) == errors
    with (folder / "out" / SUSPECTS).open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["path"], row["given"], row["suggested"], row["split"]) == ("red/99.png", "red", "blue", worst.split)


def test_the_page_shows_the_suspects_and_loads_nothing(found: tuple[Path, LabelErrors]) -> None:
    folder, errors = found
    page = Page((folder / "out" / PAGE).read_text(encoding="utf-8"))
    assert [image["alt"] for image in page.all("img")] == [suspect.path for suspect in errors.suspects]
    page.assert_loads_and_runs_nothing()


def test_folds_that_are_there_are_not_trained_again_and_others_are(
    found: tuple[Path, LabelErrors], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, errors = found
    trained: list[int] = []

    def predict_fold(*arguments: object, **_: object) -> None:
        trained.append(int(str(arguments[3])))
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "_predict_fold", predict_fold)
    spec = small_spec(folder / "data", recipe={"epochs": 4})
    again = find_label_errors(spec, folder / "out", folds=2, seed=0)
    assert again == errors
    kept = folder / "out.folds"
    whole = (kept / "fold_1.npz").read_bytes()
    (kept / "fold_1.npz").write_bytes(whole[: len(whole) // 2])  # as a full disk leaves it
    with pytest.raises(KeyboardInterrupt):
        cross_validate(spec, kept, folds=2, seed=0)
    (kept / "fold_1.npz").write_bytes(whole)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(small_spec(folder / "data", recipe={"epochs": 5}), kept, folds=2, seed=0)
    assert trained == [1, 0]


def test_what_was_decided_becomes_a_table_that_can_be_trained_on(
    found: tuple[Path, LabelErrors], tmp_path: Path
) -> None:
    folder, _ = found
    spec = small_spec(folder / "data")
    reviewed = tmp_path / "reviewed.csv"
    reviewed.write_text("path,suggested,action\nred/99.png,blue,relabel\nred/00.png,,drop\nred/01.png,blue,keep\n")
    counts = write_clean(spec, reviewed, tmp_path / "clean.csv")
    assert counts == {"relabel": 1, "drop": 1, "keep": 1}
    clean = scan(small_spec(folder / "data", data={"csv": str(tmp_path / "clean.csv")}).data)
    labels = {image.path: clean.labels[image.class_id] for image in clean.images}
    assert len(labels) == 2 * EACH - 1
    assert (labels["red/99.png"], labels["red/01.png"]) == ("blue", "red")
    before = {image.path: image.split for image in scan(spec.data).images}
    assert all(before[image.path] == image.split for image in clean.images)


REVIEWS = {
    "an unknown action": ("path,suggested,action\nred/00.png,blue,remove\n", "line 2: action 'remove'; the valid ones"),
    "an unknown label": ("path,suggested,action\nred/00.png,green,relabel\n", "the data set has no class 'green'"),
    "an unknown path": ("path,suggested,action\nred/77.png,blue,drop\n", "line 2: 'red/77.png' is not in the data set"),
    "no action": ("path,suggested\nred/00.png,blue\n", "needs the columns path, suggested and action"),
    "a short row": ("path,suggested,action\nred/00.png\n", "line 2: action None"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
    "no file": (None, "cannot be read"),
}


@pytest.mark.parametrize("fault", REVIEWS)
def test_a_review_that_cannot_be_used_is_an_error_that_says_where(fault: str, tmp_path: Path) -> None:
    text, message = REVIEWS[fault]
    root = write_colours(tmp_path / "data")
    reviewed = tmp_path / "reviewed.csv"
    if text is not None:
        reviewed.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        write_clean(small_spec(root), reviewed, tmp_path / "clean.csv")
    assert not (tmp_path / "clean.csv").exists()


def test_held_out_images_are_kept_unless_somebody_decides_otherwise() -> None:
    predicted = OutOfFold(
        dataset=Dataset(
            root="data",
            labels=LABELS,
            images=tuple(
                LabelledImage(path=f"{n}.png", class_id=n % 3, sha256=str(n), split="train" if n < 30 else "test")
                for n in range(60)
            ),
        ),
        fold_n=np.zeros(60, np.int64),
        probability_nc=np.eye(3, dtype=np.float32)[np.arange(60) % 3] * 0.94 + 0.02,
    )
    for wrong in (0, 30):
        predicted.probability_nc[wrong] = (0.01, 0.01, 0.98)
    listed = suspects(predicted, multilabel=False)
    assert [(suspect.path, suspect.action) for suspect in listed] == [("0.png", "drop"), ("30.png", "keep")]


def test_of_many_labels_the_missing_and_the_wrong_one_are_suggested() -> None:
    given = [(0, 1), (1,), (), (0, 2)] * 15
    images = tuple(
        LabelledImage(path=f"{n:02d}.png", class_ids=ids, sha256=str(n), split="train") for n, ids in enumerate(given)
    )
    probability_nc = np.array([[0.95 if c in ids else 0.05 for c in range(3)] for ids in given], np.float32)
    probability_nc[4] = (0.95, 0.05, 0.05)  # given 0 and 1: the 1 is wrong
    probability_nc[10] = (0.05, 0.05, 0.97)  # given none: the 2 is missing
    predicted = OutOfFold(Dataset(root="", labels=LABELS, images=images), np.zeros(60, np.int64), probability_nc)
    listed = {suspect.path: suspect.suggested for suspect in suspects(predicted, multilabel=True)}
    assert listed == {"04.png": ("cat",), "10.png": ("owl",)}


def test_groups_and_equal_files_share_a_fold_and_every_fold_has_every_class(tmp_path: Path) -> None:
    root = write_colours(tmp_path / "data")
    (root / "red/copy.png").write_bytes((root / "red/00.png").read_bytes())
    images = scan(small_spec(root).data).images
    grouped = [image.model_copy(update={"group": f"g{index // 4}"}) for index, image in enumerate(images)]
    dataset = Dataset(root=str(root), labels=("blue", "red"), images=tuple(grouped))
    folds = cross_validation._deal(dataset, dataset.images, [0.25] * 4, seed=0)
    for group in {image.group for image in grouped}:
        assert len({fold for image, fold in zip(grouped, folds, strict=True) if image.group == group}) == 1
    held = {(fold, image.class_id) for image, fold in zip(grouped, folds, strict=True)}
    assert len(held) == 8
    same = [fold for image, fold in zip(grouped, folds, strict=True) if image.path in ("red/00.png", "red/copy.png")]
    assert len(set(same)) == 1


def test_too_many_folds_and_too_few_are_errors(tmp_path: Path) -> None:
    spec = small_spec(write_colours(tmp_path / "data"))
    with pytest.raises(SpecError, match="folds: 1 given; at least 2 are needed"):
        cross_validate(spec, tmp_path / "kept", folds=1, seed=0)
    with pytest.raises(DataError, match=r"fewer than 30 different images or groups"):
        cross_validate(spec, tmp_path / "kept", folds=30, seed=0)


def test_a_label_with_the_separator_in_it_cannot_be_written(tmp_path: Path) -> None:
    image = LabelledImage(path="0.png", class_ids=(0,), sha256="", split="train")
    dataset = Dataset(root="", labels=("a|b", "c"), images=(image,))
    with pytest.raises(SpecError, match=r"data\.label_separator: '\|' is part of the label 'a\|b'"):
        write_table(tmp_path / "t.csv", dataset, dataset.images, small_spec(tmp_path, task="multilabel"), splits={})


def test_the_script_writes_the_clean_table_of_a_review_without_training(
    found: tuple[Path, LabelErrors], tmp_path: Path
) -> None:
    folder, errors = found
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(json.loads(small_spec(folder / "data").to_json())))
    script = ("label-errors", "spec.yaml", "--out", folder / "out", "--json")
    done = run_here(*script, "--reviewed", folder / "out" / SUSPECTS, "--clean", "clean.csv", cwd=tmp_path)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["clean"] == "clean.csv"
    assert last.get("drop", 0) + last.get("keep", 0) == len(errors.suspects)
    assert "--reviewed needs --clean FILE" in refused(*script, "--reviewed", "x.csv", cwd=tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_wrong_labels_do_not_make_the_network_less_sure(share: float) -> None:
    rng = np.random.default_rng(0)
    images, classes, temperature = 4000, 10, 1.5
    logits_nc = (4 * rng.normal(size=(images, classes))).astype(np.float32)
    truth_n = np.array([rng.choice(classes, p=row) for row in softmax(logits_nc / temperature, axis=1)])
    wrong_n = rng.random(images) < share
    given_n = np.where(wrong_n, rng.integers(classes, size=images), truth_n)
    found, noise = fit_noisy_temperature(logits_nc, given_n)
    assert found == pytest.approx(temperature, rel=0.07)
    assert noise == pytest.approx(share, abs=0.02)
    if share == 0.2:
        assert fit_temperature(logits_nc, given_n) > 1.5 * temperature
