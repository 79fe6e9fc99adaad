"""Splits that are drawn: groups and copies stay together, each class is in each split, in about its share."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import DataError
from slipway.contract.dataset import SPLITS, Split
from slipway.contract.spec import Data
from slipway.training.data.dataset import scan
from slipway.training.data.sources import Entry
from slipway.training.data.splits import assign
from tests.support.labelled_files import data, write_images, write_table

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def options(**changes: object) -> Data:
    return Data.parse({"root": "data", **changes}, source="test")


def entries_of(labels: list[tuple[str, ...]], groups: list[str | None]) -> list[Entry]:
    return [
        Entry(f"{index}.png", names, group=group)
        for index, (names, group) in enumerate(zip(labels, groups, strict=True))
    ]


def digests(count: int) -> list[str]:
    return [f"{index:064x}" for index in range(count)]


def label_shares(entries: list[Entry], splits: list[Split], label: str) -> dict[str, float]:
    found = Counter(split for entry, split in zip(entries, splits, strict=True) if label in entry.labels)
    return {split: found[split] / found.total() for split in SPLITS}


sizes = st.lists(st.integers(1, 6), min_size=12, max_size=60)


@given(sizes, st.integers(2, 4), st.integers(0, 2**31))
def test_groups_are_never_parted_and_every_class_is_in_every_split(sizes: list[int], classes: int, seed: int) -> None:
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    labels = [(f"c{group % classes}",) for group, size in enumerate(sizes) for _ in range(size)]
    entries = entries_of(labels, list(groups))
    names = sorted({label for (label,) in labels})
    splits = assign(entries, digests(len(entries)), labels=names, data=options(seed=seed))
    of_group = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        of_group[group].add(split)
    assert {len(found) for found in of_group.values()} == {1}
    assert {(entry.labels[0], split) for entry, split in zip(entries, splits, strict=True)} == {
        (name, split) for name in names for split in SPLITS
    }


def test_many_small_groups_come_near_to_the_shares_asked_for() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 8, 200).tolist()
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    labels = [("rare",) if rng.random() < 0.1 else ("common",) for _ in groups]
    entries = entries_of(labels, list(groups))
    splits = assign(entries, digests(len(entries)), labels=("common", "rare"), data=options())
    for label in ("common", "rare"):
        assert label_shares(entries, splits, label) == pytest.approx(SHARES, abs=0.04)


@given(st.integers(0, 2**31))
def test_images_of_many_labels_are_stratified_by_each_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    odds = {"common": 0.6, "half": 0.4, "rare": 0.05}
    labels = [tuple(label for label, chance in odds.items() if rng.random() < chance) for _ in range(400)]
    entries = entries_of(labels, [None] * 400)
    splits = assign(entries, digests(400), labels=tuple(odds), data=options(seed=seed))
    assert Counter(splits)["train"] == pytest.approx(280, abs=12)
    for label in ("common", "half"):
        assert label_shares(entries, splits, label) == pytest.approx(SHARES, abs=0.04)
    assert min(label_shares(entries, splits, "rare").values()) > 0


def test_a_label_on_three_images_is_in_all_three_splits() -> None:
    labels = [("rare", "common") if index < 3 else ("common",) for index in range(60)]
    entries = entries_of(labels, [None] * 60)
    splits = assign(entries, digests(60), labels=("common", "rare"), data=options())
    assert set(splits[:3]) == set(SPLITS)


def test_equal_files_stay_together_even_if_their_groups_differ() -> None:
    entries = entries_of([("a",), ("b",)] * 20, [f"g{index}" for index in range(40)])
    same = digests(40)
    same[2] = same[4] = same[0]
    splits = assign(entries, same, labels=("a", "b"), data=options())
    assert len({splits[0], splits[2], splits[4]}) == 1


def test_the_draw_is_repeatable_and_depends_on_content_and_seed_alone() -> None:
    entries = entries_of([("a",), ("b",)] * 30, [f"g{index // 2}" for index in range(60)])
    names = digests(60)
    first = assign(entries, names, labels=("a", "b"), data=options())
    assert assign(entries, names, labels=("a", "b"), data=options()) == first
    assert assign(entries[::-1], names[::-1], labels=("a", "b"), data=options())[::-1] == first
    assert assign(entries, names, labels=("a", "b"), data=options(seed=1)) != first


def test_a_class_in_too_few_groups_is_an_error_that_says_in_how_many() -> None:
    entries = entries_of([("a",), ("b",)] * 20, [f"g{index // 20}-{index % 2}" for index in range(40)])
    with pytest.raises(DataError, match=r"fewer than 3 different images or groups(?s:.)*'a': in 2\n  'b': in 2"):
        assign(entries, digests(40), labels=("a", "b"), data=options())


def test_equal_images_with_different_labels_are_refused_for_many_labels_too() -> None:
    entries = entries_of([("a",), ("a", "b")] + [("a", "b")] * 20, [None] * 22)
    names = digests(22)
    names[1] = names[0]
    with pytest.raises(DataError, match=r"the same image in two classes; .*: 0\.png, 1\.png$"):
        assign(entries, names, labels=("a", "b"), data=options())


def test_a_table_with_groups_is_split_by_them(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 60)
    table = [["path", "label", "camera"]] + [
        [name, "cat" if index % 2 else "dog", f"camera {index // 4}"] for index, name in enumerate(names)
    ]
    path = write_table(tmp_path / "table.csv", table)
    dataset = scan(data(tmp_path / "data", csv=str(path), group_column="camera"))
    splits = defaultdict(set)
    for image in dataset.images:
        splits[image.group].add(image.split)
    assert len(splits) == 15
    assert {len(found) for found in splits.values()} == {1}
    assert len(dataset.of("validation")) + len(dataset.of("test")) >= 0.15 * 60
