"""Class folders to a data set: the split, what cannot be used, the calibration sample, and the demo's images."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.contract import DataError, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.spec import Calibration
from slipway.system.files import sha256_bytes
from slipway.training.bundle.calibration import sample
from slipway.training.data.dataset import scan
from tests.support.bad_images import corpus
from tests.support.image_files import flipped
from tests.support.labelled_files import data, unique

SPLITS = ("train", "validation", "test")
CORPUS = {case.name: case for case in corpus()}


def write(root: Path, counts: dict[str, int]) -> Path:
    """So many different images in each class folder."""
    number = 0
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for _ in range(count):
            (root / label / f"{number:04d}.png").write_bytes(unique(number))
            number += 1
    return root


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    return write(tmp_path / "data", {"cat": 20, "dog": 20})


fractions = st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=4), fractions, st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_every_class_is_in_every_split_in_its_share_and_no_image_in_two(
    tmp_path_factory: pytest.TempPathFactory, surplus: list[int], shares: tuple[float, float], seed: int
) -> None:
    validation, test = shares
    needed = int(2 / min(validation, test, 1 - validation - test)) + 1
    counts = {f"class {index}": needed + more for index, more in enumerate(surplus)}
    root = write(tmp_path_factory.mktemp("data"), counts)
    dataset = scan(data(root, validation_fraction=validation, test_fraction=test, seed=seed))
    assert dataset.labels == tuple(counts)
    assert len({image.path for image in dataset.images}) == len(dataset.images) == sum(counts.values())
    assert [len(dataset.of(split)) for split in SPLITS] == [sum(i.split == s for i in dataset.images) for s in SPLITS]
    found = Counter((image.class_id, image.split) for image in dataset.images)
    for class_id, label in enumerate(dataset.labels):
        for split, share in zip(SPLITS, (1 - validation - test, validation, test), strict=True):
            assert found[class_id, split] >= 1
            assert abs(found[class_id, split] - share * counts[label]) <= 3


def test_a_scan_is_repeatable_and_its_seed_changes_the_split_alone(two_classes: Path) -> None:
    first, again, other = (scan(data(two_classes, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert [image.path for image in other.images] == [image.path for image in first.images]
    assert [image.split for image in other.images] != [image.split for image in first.images]


def test_the_split_depends_on_content_and_not_on_file_names(two_classes: Path) -> None:
    before = {image.sha256: image.split for image in scan(data(two_classes)).images}
    for path in list(two_classes.glob("*/*.png")):
        path.rename(path.with_name(f"renamed {path.name[::-1]}.png"))
    assert {image.sha256: image.split for image in scan(data(two_classes)).images} == before


def test_equal_files_get_one_split_wherever_they_lie_in_their_class(two_classes: Path) -> None:
    (two_classes / "cat/more/deep").mkdir(parents=True)
    for number in range(20):
        (two_classes / f"cat/more/deep/copy of {number}.jpg").write_bytes(unique(number))
    splits = defaultdict(set)
    dataset = scan(data(two_classes))
    for image in dataset.images:
        splits[image.sha256].add(image.split)
    assert len(dataset.images) == 60
    assert {len(found) for found in splits.values()} == {1}
    assert "cat/more/deep/copy of 0.jpg" in {image.path for image in dataset.images}


def test_one_image_in_two_classes_is_an_error_that_names_both_files(two_classes: Path) -> None:
    (two_classes / "dog/same.png").write_bytes(unique(3))
    with pytest.raises(DataError, match=r"same image in two classes; .*: cat/0003\.png, dog/same\.png$"):
        scan(data(two_classes))
    for number in range(40):
        (two_classes / f"dog/again{number:02}.png").write_bytes(unique(3))
    with pytest.raises(DataError, match=r"dog/again10\.png, 30 more$"):
        scan(data(two_classes))


def test_given_labels_number_the_classes_and_change_nothing_else(two_classes: Path) -> None:
    by_folder, given = scan(data(two_classes)), scan(data(two_classes), labels=("dog", "cat"))
    assert (by_folder.labels, given.labels) == (("cat", "dog"), ("dog", "cat"))
    assert {image.path: given.labels[image.class_id] for image in given.images} == {
        image.path: by_folder.labels[image.class_id] for image in by_folder.images
    }
    assert {image.path.split("/")[0] for image in given.images if image.class_id == 0} == {"dog"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("cat", "dog", "owl"), r"the class folders do not match the labels; .*\n  labels without a folder: 'owl'$"),
        (("cat",), r"\n  folders without a label: 'dog'$"),
        (("cat", "Dog"), r"\n  labels without a folder: 'Dog'\n  folders without a label: 'dog'$"),
        (("cat", "dog", "../data/dog"), r"\n  labels without a folder: '\.\./data/dog'$"),
        (("cat", "dog", *map(str, range(30))), r"without a folder: '0', .*, '11', 18 more$"),
    ],
)
def test_folders_that_are_not_the_labels_are_named(labels: tuple[str, ...], message: str, two_classes: Path) -> None:
    with pytest.raises(DataError, match=message):
        scan(data(two_classes), labels=labels)


def test_hidden_files_and_folders_and_files_beside_the_classes_are_passed_over(two_classes: Path) -> None:
    (two_classes / ".cache").mkdir()
    (two_classes / ".cache/x.png").write_bytes(unique(900))
    (two_classes / "cat/.DS_Store").write_bytes(b"not an image")
    (two_classes / "README.md").write_text("not an image")
    assert len(scan(data(two_classes)).images) == 40


def test_hidden_folders_inside_a_class_are_passed_over(two_classes: Path) -> None:
    (two_classes / "cat/.ipynb_checkpoints").mkdir()
    (two_classes / "cat/.ipynb_checkpoints/old.png").write_bytes(unique(900))
    assert len(scan(data(two_classes)).images) == 40


def no_folder(root: Path) -> None:
    (root / "cat").rename(root.with_name("elsewhere"))
    (root / "dog").rename(root.with_name("elsewhere too"))
    root.rmdir()


def a_file_for_a_folder(root: Path) -> None:
    no_folder(root)
    root.write_text("")


def one_class(root: Path) -> None:
    (root / "dog").rename(root.with_name("elsewhere"))


def no_class(root: Path) -> None:
    one_class(root)
    (root / "cat").rename(root.with_name("elsewhere too"))


def one_image(root: Path) -> None:
    (root / "cow").mkdir()
    (root / "cow/cow.png").write_bytes(unique(900))


def unreadable(root: Path) -> None:
    for name in ("text", "nothing", "PNG without its end", "10000x1 PNG"):
        (root / "dog" / f"{name}.png").write_bytes(CORPUS[name].data)


FAULTS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no folder": (no_folder, DataError, "data: no such folder; data.root is one folder with a sub-folder"),
    "a file in place of the folder": (a_file_for_a_folder, DataError, "data: no such folder"),
    "no class": (no_class, DataError, "class folders found: none; a classifier needs at least two"),
    "one class": (one_class, DataError, "class folders found: cat; a classifier needs at least two"),
    "an empty class": (lambda root: (root / "cow").mkdir(), DataError, "class 'cow' has 0 different images"),
    "one image": (one_image, DataError, "class 'cow' has 1 different images"),
    "a label with a line break": (lambda root: (root / "a\nb").mkdir(), SpecError, r"label 0 is 'a\\nb': it holds U"),
    "a label with an outer space": (lambda root: (root / "cow ").mkdir(), SpecError, "label 1 is 'cow '"),
    "a reserved label": (lambda root: (root / "unknown").mkdir(), SpecError, "label 2 is 'unknown', reserved for"),
    "unreadable images": (unreadable, DataError, r"4 files cannot be used(?s:.)*10000x1 PNG.png: too large"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_data_set_that_cannot_be_used_is_an_error_that_says_why(fault: str, two_classes: Path) -> None:
    break_it, kind, message = FAULTS[fault]
    break_it(two_classes)
    with pytest.raises(kind, match=message):
        scan(data(two_classes))


def test_every_unusable_file_is_named_with_its_reason_and_a_long_list_is_cut(two_classes: Path) -> None:
    for number in range(12):
        (two_classes / f"cat/broken {number:02d}.jpg").write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DataError) as error:
        scan(data(two_classes))
    message = str(error.value)
    assert message.startswith("12 files cannot be used; repair or remove them:")
    assert all(f"broken {number:02d}.jpg: corrupt" in message for number in range(10))
    assert "broken 10.jpg" not in message
    assert message.endswith("… and 2 more")


def test_too_few_images_names_the_number_that_is_needed_and_that_number_is_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'dog' has 13 different images; .* at least 14"):
        scan(data(write(tmp_path / "few", {"cat": 14, "dog": 13})))
    scan(data(write(tmp_path / "enough", {"cat": 14, "dog": 14})))


def test_a_changed_or_missing_image_is_refused_by_name(two_classes: Path) -> None:
    dataset = scan(data(two_classes))
    changed, missing, good = dataset.images[:3]
    (two_classes / changed.path).write_bytes(flipped(unique(0), 40))
    (two_classes / missing.path).unlink()
    with pytest.raises(DataError, match=r"cat/0000\.png: changed since the data set was split"):
        dataset.load(changed)
    with pytest.raises(DataError, match=r"cat/0001\.png: cannot be read: No such file or directory; run this where"):
        dataset.load(missing)
    assert dataset.load(good) == unique(2)


def test_a_data_set_reads_back_as_it_was_written(two_classes: Path, tmp_path: Path) -> None:
    dataset = scan(data(two_classes))
    dataset.write(tmp_path / "dataset.json")
    assert Dataset.read(tmp_path / "dataset.json") == dataset


def images(counts: list[int]) -> list[LabelledImage]:
    paths = [(class_id, f"{class_id}/{number:03d}") for class_id, count in enumerate(counts) for number in range(count)]
    return [LabelledImage(path=p, class_id=c, sha256=sha256_bytes(p.encode()), split="train") for c, p in paths]


def test_the_calibration_sample_is_seeded_sorted_and_in_the_classes_proportions() -> None:
    train = images([200, 100, 50])
    drawn, again, other = (sample(train, Calibration(images=70, seed=seed)) for seed in (0, 0, 1))
    assert drawn == again
    assert drawn != other
    assert Counter(image.class_id for image in drawn) == {0: 40, 1: 20, 2: 10}
    assert [image.path for image in drawn] == sorted({image.path for image in drawn})
    assert set(drawn) <= set(train)


def test_a_calibration_sample_larger_than_the_train_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"calibration.images: 31 given, but the train split has only 30 images"):
        sample(images([20, 10]), Calibration(images=31))
    assert len(sample(images([20, 10]), Calibration(images=30))) == 30


@pytest.mark.parametrize("asked", [1, 2, 28, 29])
def test_any_calibration_sample_that_the_train_split_can_give_is_given(asked: int) -> None:
    assert len(sample(images([10, 10, 10]), Calibration(images=asked))) == asked
