"""Where a data set is listed: folders of splits and CSV files, and every fault of theirs before an image is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.contract import DataError, SlipwayError, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.training.data.dataset import scan
from tests.support.labelled_files import data, unique, write_images, write_table

SPLITS = ("train", "validation", "test")
Rows = list[list[str]]


def split_folders(root: Path, *, labels: tuple[str, ...] = ("cat", "dog"), each: int = 3) -> Path:
    number = 0
    for split in SPLITS:
        for label in labels:
            (root / split / label).mkdir(parents=True)
            for _ in range(each):
                (root / split / label / f"{number}.png").write_bytes(unique(number))
                number += 1
    return root


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """40 images in `data`."""
    return write_images(tmp_path / "data", 40)


def rows(images: list[str]) -> Rows:
    return [["path", "label"], *([name, "cat" if index % 2 else "dog"] for index, name in enumerate(images))]


def read(tmp_path: Path, table: Rows | bytes, *, task: Task = "multiclass", **options: str) -> Dataset:
    path = tmp_path / "table.csv"
    if isinstance(table, bytes):
        path.write_bytes(table)
    else:
        write_table(path, table)
    return scan(data(tmp_path / "data", csv=str(path), **options), task=task)


def test_folders_of_the_three_splits_are_taken_as_given(tmp_path: Path) -> None:
    dataset = scan(data(split_folders(tmp_path / "data")))
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.images) == 18
    assert all(image.path.startswith(f"{image.split}/{dataset.labels[image.class_id]}/") for image in dataset.images)


def test_a_class_that_happens_to_be_called_train_is_a_class(tmp_path: Path) -> None:
    for offset, label in enumerate(("bus", "train", "tram")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(14):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(unique(100 * offset + number))
    assert scan(data(tmp_path / "data")).labels == ("bus", "train", "tram")


@pytest.mark.parametrize("names", [("train", "val"), ("train", "test"), ("training", "validation", "testing")])
def test_folders_that_look_like_splits_are_not_taken_for_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "data" / name / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"look like splits, not classes; give all of train, validation, test"):
        scan(data(tmp_path / "data"))


def test_a_class_that_a_given_split_lacks_is_named_with_the_split(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "data")
    for path in (root / "test/dog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"classes lack images in a split(?s:.)*'dog': none in test"):
        scan(data(root))


def test_one_image_in_two_given_splits_is_refused_with_both_names(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "data")
    (root / "test/cat/copy.png").write_bytes(unique(0))
    with pytest.raises(DataError, match=r"train/cat/0.png \(train\) and test/cat/copy.png \(test\)"):
        scan(data(root))


def test_a_table_of_paths_and_labels_is_a_data_set(tmp_path: Path, images: list[str]) -> None:
    dataset = read(tmp_path, rows(images))
    assert dataset.labels == ("cat", "dog")
    found = {image.path: dataset.labels[image.class_id] for image in dataset.images}
    assert found == dict(rows(images)[1:])
    assert {image.split for image in dataset.images} == set(SPLITS)


def test_splits_and_groups_of_a_table_are_taken_as_given(tmp_path: Path, images: list[str]) -> None:
    table = [["group", "split", "label", "path", "camera"]] + [
        [f"g{index // 2}", SPLITS[index // 2 % 3], "cat" if index % 2 else "dog", name, "ignored"]
        for index, name in enumerate(images)
    ]
    dataset = read(tmp_path, table, group_column="group")
    assert {i.path: (i.group, i.split) for i in dataset.images} == {r[3]: (r[0], r[1]) for r in table[1:]}


def test_images_of_many_labels_or_none_are_read(tmp_path: Path, images: list[str]) -> None:
    cells = ("cat|dog", "dog", "", "owl|cat")
    table = [["path", "labels"]] + [[name, cells[index % 4]] for index, name in enumerate(images)]
    dataset = read(tmp_path, table, task="multilabel")
    assert dataset.labels == ("cat", "dog", "owl")
    class_ids = {image.path: image.class_ids for image in dataset.images}
    assert [class_ids[name] for name in images[:4]] == [(0, 1), (1,), (), (0, 2)]
    assert Dataset.parse(dataset.model_dump(), source="test") == dataset


def test_another_separator_can_be_given(tmp_path: Path, images: list[str]) -> None:
    table = [["path", "labels"]] + [[name, "a|b; c"] for name in images]
    dataset = read(tmp_path, table, task="multilabel", label_separator="; ")
    assert dataset.labels == ("a|b", "c")


@pytest.mark.parametrize("cell", ["cat;dog", "cat,dog"])
def test_labels_with_another_separator_than_the_given_one_are_not_taken_for_one(
    tmp_path: Path, images: list[str], cell: str
) -> None:
    cells = (cell, "dog", "")
    table = [["path", "labels"]] + [[name, cells[index % 3]] for index, name in enumerate(images)]
    with pytest.raises(SpecError, match=f"{cell!r} would be one label.*; write data.label_separator: {cell[3]!r}, or"):
        read(tmp_path, table, task="multilabel")
    (tmp_path / "labels.txt").write_text(f"{cell}\ndog\n")
    assert read(tmp_path, table, task="multilabel", labels=str(tmp_path / "labels.txt")).labels == (cell, "dog")


def test_names_that_are_not_ascii_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "data/größe 日本").mkdir(parents=True)
    lines = ["path,label"]
    for number in range(28):
        (tmp_path / f"data/größe 日本/é,{number}.png").write_bytes(unique(number))
        lines.append(f'"größe 日本/é,{number}.png",{"größer" if number % 2 else "小さい"}')
    dataset = read(tmp_path, ("\r\n".join(lines) + "\r\n").encode("utf-8-sig"))
    assert dataset.labels == ("größer", "小さい")
    assert dataset.images[0].path.startswith("größe 日本/é,")


def test_a_backslash_that_is_part_of_a_name_is_read(tmp_path: Path, images: list[str]) -> None:
    (tmp_path / "data/a\\b.png").write_bytes(unique(1000))
    dataset = read(tmp_path, [*rows(images), ["a\\b.png", "cat"]])
    assert "a\\b.png" in {image.path for image in dataset.images}


def test_line_ends_of_an_old_mac_and_quoted_cells_are_read(tmp_path: Path, images: list[str]) -> None:
    lines = [",".join(f'"{value}"' for value in row) for row in rows(images)]
    assert read(tmp_path, "\r".join(lines).encode()) == read(tmp_path, rows(images))


def test_a_path_has_one_spelling(tmp_path: Path, images: list[str]) -> None:
    table = rows(images)
    table[1][0] = f".//{images[0]}"
    assert images[0] in {image.path for image in read(tmp_path, table).images}
    with pytest.raises(DataError, match=r"line 42: '0000.png' is already in line 2"):
        read(tmp_path, [*table, [f"./{images[0]}", "dog"]])


def cell(line: int, column: int, text: str) -> Callable[[Rows], Rows]:
    def change(table: Rows) -> Rows:
        table[line - 1][column] = text
        return table

    return change


def with_split(splits: tuple[str, ...]) -> Callable[[Rows], Rows]:
    return lambda table: [
        [*row, "split" if index == 0 else splits[index % len(splits)]] for index, row in enumerate(table)
    ]


TABLES: dict[str, tuple[Callable[[Rows], Rows | bytes], str]] = {
    "a missing file": (cell(3, 0, "no.png"), r"1 rows of .*table\.csv .*\n  line 3: .*data/no\.png: no such file"),
    "a folder": (cell(3, 0, "folder"), "line 3: .*data/folder: no such file; it is a folder"),
    "an absolute path": (cell(3, 0, "/etc/passwd"), "line 3: '/etc/passwd' leaves data.root; write paths relative"),
    "a path upwards": (cell(3, 0, "a/../../x.png"), r"line 3: 'a/\.\./\.\./x\.png' leaves data\.root"),
    "a path that is too long": (cell(3, 0, "x" * 300), "line 3: .*: cannot be read: File name too long"),
    "backslashes": (
        cell(3, 0, "folder\\a.png"),
        r"line 3: .*no such file; .* relative to data.root, with / instead of \\",
    ),
    "a path of Windows": (cell(3, 0, "C:\\a.png"), r"line 3: .*no such file; .* relative to data\.root, with / inst"),
    "upwards in Windows": (cell(3, 0, "..\\a.png"), r"line 3: .*no such file; .* relative to data\.root, with / inst"),
    "outer spaces": (cell(3, 0, " 0007.png"), "line 3: .*no such file; remove the spaces around the paths"),
    "escaped quotes": (
        lambda _: b'path,label\n"a\\"b.png",cat\n',
        "line 2: not CSV: .*; double each quote inside a value",
    ),
    "an empty path": (cell(3, 0, ""), "line 3: an empty path"),
    "the root as a path": (cell(3, 0, "./"), "line 3: an empty path"),
    "the same path twice": (cell(3, 0, "0000.png"), "line 3: '0000.png' is already in line 2"),
    "an empty label": (cell(3, 1, ""), "line 3: an empty label"),
    "a label with outer spaces": (cell(3, 1, " cat"), "line 3: the label ' cat' begins or ends with a space"),
    "a label with a line break": (cell(3, 1, "a\nb"), r"label 0 is 'a\\nb': it holds U"),
    "a reserved label": (cell(3, 1, "unknown"), "'unknown', reserved for refused answers"),
    "an unknown split": (with_split(("train", "val", "test")), "line 2: split 'val'; the valid ones are train, valid"),
    "an empty split": (with_split(("train", "", "test")), "line 2: split ''; the valid ones"),
    "a split without images": (with_split(("train", "test")), "'cat': none in validation"),
    "a row that is too long": (lambda t: [*t[:2], ["a", "b", "c"]], "line 3: 3 values for 2 columns; quote a value"),
    "a row that is too short": (lambda t: [*t[:2], ["a"]], "line 3: 1 values for 2 columns"),
    "no rows": (lambda t: t[:1], r"0 label\(s\) given"),
    "one class": (lambda t: [t[0], *([name, "cat"] for name, _ in t[1:])], r"1 label\(s\) given"),
    "an empty file": (lambda _: b"", "table.csv: empty; its first line must name the columns: path,label"),
    "no header": (lambda t: t[1:], "the columns are '0000.png', 'dog'; task multiclass needs 'path' and 'label'"),
    "semicolons": (lambda _: b"path;label\na;b\n", "the columns are separated by semicolons; save it with commas"),
    "tabs": (lambda _: b"path\tlabel\na\tb\n", "the columns are separated by tabs"),
    "a column in capitals": (lambda t: [["Path", "label"], *t[1:]], "unknown column 'Path'; write 'path'"),
    "a column with a space": (lambda t: [["path", " label"], *t[1:]], "unknown column ' label'; write 'label'"),
    "a column twice": (lambda t: [[*r, r[1]] for r in t], "two columns are called 'label'"),
    "labels for one label": (lambda t: [["path", "labels"], *t[1:]], "'labels' belongs to task: multilabel"),
    "NUL": (lambda _: b"path,label\na.png,cat\nb\0.png,dog\n", "line 3: a NUL character"),
    "UTF-16": (lambda _: "path,label\n".encode("utf-16"), "not UTF-8 text .* save it as CSV in UTF-8"),
    "an open quote": (lambda _: b'path,label\n"a.png,cat\n', "line 2: not CSV: unexpected end of data"),
}


@pytest.mark.parametrize("fault", TABLES)
def test_a_table_that_cannot_be_used_is_an_error_that_says_where_and_why(
    fault: str, tmp_path: Path, images: list[str]
) -> None:
    break_it, message = TABLES[fault]
    (tmp_path / "data/folder").mkdir()
    (tmp_path / "data/folder/a.png").write_bytes(unique(1000))
    with pytest.raises(SlipwayError, match=message):
        read(tmp_path, break_it(rows(images)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat||dog", "an empty label"),
        ("cat|", "an empty label"),
        ("cat| dog", "begins or ends with a space"),
        ("a|a", "twice"),
    ],
)
def test_a_cell_of_labels_that_is_malformed_is_named(
    text: str, message: str, tmp_path: Path, images: list[str]
) -> None:
    with pytest.raises(DataError, match=rf"line 2: .*{message}"):
        read(tmp_path, [["path", "labels"], [images[0], text]], task="multilabel")


def test_many_faults_are_told_at_once_and_a_long_list_is_cut(tmp_path: Path, images: list[str]) -> None:
    table = rows(images) + [[f"no {number}.png", "cat"] for number in range(12)]
    with pytest.raises(DataError) as error:
        read(tmp_path, table)
    assert str(error.value).startswith("12 rows of ")
    assert str(error.value).endswith("… and 2 more")


def test_a_group_that_spans_given_splits_is_refused(tmp_path: Path, images: list[str]) -> None:
    table = [["path", "label", "split", "patient"]] + [
        [name, "cat" if index % 2 else "dog", SPLITS[index // 2 % 3], "p" if index in (2, 4) else f"p{index}"]
        for index, name in enumerate(images)
    ]
    with pytest.raises(DataError, match=r"1 groups are in two splits(?s:.)*'p': 0002.png \(validation\) and 0004.png"):
        read(tmp_path, table, group_column="patient")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([["path", "label", "patient"], ["0000.png", "cat", ""]], "line 2: an empty group"),
        ([["path", "label", "place"], ["0000.png", "cat", "x"]], "data.group_column: 'patient' given, but the columns"),
    ],
)
@pytest.mark.usefixtures("images")
def test_a_group_column_that_is_missing_or_empty_is_an_error(table: Rows, message: str, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=message):
        read(tmp_path, table, group_column="patient")


@pytest.mark.usefixtures("images")
def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv: cannot be read: No such file or directory"):
        scan(data(tmp_path / "data", csv=str(tmp_path / "none.csv")))


def test_groups_without_a_table_and_many_labels_without_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="group_column is a column of a CSV file"):
        data(tmp_path, group_column="patient")
    with pytest.raises(SpecError, match=r"task multilabel needs data\.csv"):
        scan(data(split_folders(tmp_path / "data")), task="multilabel")


def test_labels_that_are_not_those_of_the_table_are_named(tmp_path: Path, images: list[str]) -> None:
    path = write_table(tmp_path / "table.csv", rows(images))
    with pytest.raises(DataError, match=r"labels without a row: 'owl'\n  rows without a label: 'dog'"):
        scan(data(tmp_path / "data", csv=str(path)), labels=("cat", "owl"))


def test_an_image_of_one_class_may_be_given_by_its_class_id() -> None:
    image = LabelledImage.parse({"path": "a", "class_id": 3, "sha256": "", "split": "train"}, source="old dataset.json")
    assert (image.class_ids, image.class_id, image.group) == ((3,), 3, None)


text = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.lists(st.lists(text, max_size=4), max_size=6), st.booleans())
@settings(max_examples=200)
def test_any_table_is_read_or_refused_with_our_error(
    tmp_path_factory: pytest.TempPathFactory, table: Rows, many: bool
) -> None:
    folder = tmp_path_factory.mktemp("table")
    write_images(folder / "data", 1)
    header = ["path", "labels" if many else "label"]
    with pytest.raises(SlipwayError):
        read(folder, [header, *table], task="multilabel" if many else "multiclass")
