"""Assigns every image to one split: as given, or drawn with a seed so that each split gets its share of each class."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import train_test_split

from slipway.contract import DataError
from slipway.contract.dataset import SPLITS, Split
from slipway.contract.spec import Data
from slipway.system.text import few
from slipway.training.data.sources import Entry, raise_faults
from slipway.training.data.stratify import Ids, place


def assign(entries: Sequence[Entry], digests: Sequence[str], *, labels: Sequence[str], data: Data) -> list[Split]:
    """Return the split of each entry, whose sha256 is in `digests`. Equal files, and files of one group, share a split.

    Given splits are kept. Otherwise scikit-learn's stratified `train_test_split` draws images of one label each, and
    `stratify.place` draws groups or images of several labels.

    Raises:
        DataError: equal files have different labels or lie in two given splits, a group lies in two given splits, or a
            class is missing from a split.
    """
    _check_labels_of_equal_files(entries, digests)
    given = [entry.split for entry in entries if entry.split is not None]
    if entries and len(given) == len(entries):
        _check_given(entries, digests)
        splits = given
    elif any(entry.group is not None or len(entry.labels) != 1 for entry in entries):
        splits = _draw_units(entries, digests, labels, data)
    else:
        splits = _draw_images(entries, digests, labels, data)
    _check_complete(entries, splits, labels)
    return splits


def _check_labels_of_equal_files(entries: Sequence[Entry], digests: Sequence[str]) -> None:
    for same in equal(digests):
        if len({entries[index].labels for index in same}) > 1:
            paths = sorted(entries[index].path for index in same)
            raise DataError(f"the same image in two classes; keep the right one: {few(paths)}")


def _check_given(entries: Sequence[Entry], digests: Sequence[str]) -> None:
    def named(indices: Sequence[int]) -> str:
        return " and ".join(f"{entries[index].path} ({entries[index].split})" for index in indices[:4])

    def spanning(keys: Sequence[Hashable]) -> list[list[int]]:
        return [same for same in equal(keys) if len({entries[index].split for index in same}) > 1]

    raise_faults(
        [named(same) for same in spanning(digests)], what="images are in two splits, which spoils the test; keep one"
    )
    groups = [("group", e.group) if e.group is not None else ("no group", i) for i, e in enumerate(entries)]
    raise_faults(
        [f"{entries[same[0]].group!r}: {named(_one_of_each_split(entries, same))}" for same in spanning(groups)],
        what="groups are in two splits; give each one split",
    )


def _one_of_each_split(entries: Sequence[Entry], indices: Sequence[int]) -> list[int]:
    return list({entries[index].split: index for index in indices}.values())


def _check_complete(entries: Sequence[Entry], splits: Sequence[Split], labels: Sequence[str]) -> None:
    found = Counter((label, split) for entry, split in zip(entries, splits, strict=True) for label in entry.labels)
    raise_faults(
        [f"{label!r}: none in {split}" for label in labels for split in SPLITS if not found[label, split]],
        what="classes lack images in a split; each class needs images in train, validation and test: add images, move "
        "some, or remove the class",
    )


def equal(keys: Sequence[Hashable]) -> list[list[int]]:
    """Return the indices of equal keys, for each key that occurs more than once, in order of first occurrence."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        found[key].append(index)
    return [same for same in found.values() if len(same) > 1]


def _draw_images(entries: Sequence[Entry], digests: Sequence[str], labels: Sequence[str], data: Data) -> list[Split]:
    classes = {digest: entry.labels[0] for entry, digest in zip(entries, digests, strict=True)}
    counts = Counter(classes.values())
    for label in labels:
        if counts[label] < data.least_images:
            raise DataError(
                f"class {label!r} has {counts[label]} different images; with these split fractions every class "
                f"needs at least {data.least_images}: add images, or remove the class"
            )
    numbers = {label: number for number, label in enumerate(labels)}

    def cut(digests: list[str], share: float) -> tuple[list[str], list[str]]:
        strata = [numbers[classes[digest]] for digest in digests]
        kept, rest = train_test_split(digests, test_size=share, stratify=strata, random_state=data.seed)
        return kept, rest

    held_out = data.validation_fraction + data.test_fraction
    train, rest = cut(sorted(classes), held_out)
    validation, test = cut(rest, data.test_fraction / held_out)
    members: tuple[tuple[Split, list[str]], ...] = (("train", train), ("validation", validation), ("test", test))
    splits = {digest: split for split, held in members for digest in held}
    return [splits[digest] for digest in digests]


def _draw_units(entries: Sequence[Entry], digests: Sequence[str], labels: Sequence[str], data: Data) -> list[Split]:
    """Draw units of images that must stay together: those of a group, and equal files wherever they are."""
    numbers = {label: number for number, label in enumerate(labels)}
    held_out = data.validation_fraction + data.test_fraction
    parts = draw_parts(
        [[numbers[label] for label in entry.labels] for entry in entries],
        digests,
        [entry.group for entry in entries],
        labels=labels,
        shares=(1 - held_out, data.validation_fraction, data.test_fraction),
        seed=data.seed,
    )
    return [SPLITS[part] for part in parts]


def draw_parts(
    class_ids: Sequence[Iterable[int]],
    digests: Sequence[str],
    groups: Sequence[str | None],
    *,
    labels: Sequence[str],
    shares: Sequence[float],
    seed: int,
) -> list[int]:
    """Return the part of each image, numbered as `shares`, which are positive with sum 1; see `stratify.place`.

    Equal files, by their sha256 in `digests`, and files of one group stay together. Neither file names nor the order of
    the images matter.

    Raises:
        DataError: a class is in fewer units than there are parts.
    """
    keys = [("file", d) if group is None else ("group", group) for group, d in zip(groups, digests, strict=True)]
    unit_n = _units(digests, keys)
    names: list[str] = ["~"] * (int(unit_n.max()) + 1)  # a unit's name is its smallest hash
    counts: list[Counter[int]] = [Counter() for _ in names]
    for unit, ids, digest in zip(unit_n.tolist(), class_ids, digests, strict=True):
        names[unit] = min(names[unit], digest)
        counts[unit].update(ids)
    order = sorted(range(len(names)), key=names.__getitem__)
    sizes_n = np.bincount(unit_n)[order]
    placed_n = place(sizes_n, [counts[unit] for unit in order], labels, shares_s=np.array(shares), seed=seed)
    part_of = dict(zip(order, placed_n.tolist(), strict=True))
    return [part_of[unit] for unit in unit_n.tolist()]


def _units(digests: Sequence[str], groups: Sequence[Hashable]) -> Ids:
    """Return the index of each image's unit: equal files and equal groups join images."""
    numbers: dict[Hashable, int] = {}
    left = [numbers.setdefault(("file", digest), len(numbers)) for digest in digests]
    right = [numbers.setdefault(group, len(numbers)) for group in groups]
    edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(numbers), len(numbers)))
    _, component = connected_components(edges, directed=False)
    units: Ids = np.unique(component[left], return_inverse=True)[1].astype(np.int64)
    return units
