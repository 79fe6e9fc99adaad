"""Places units of images (a group, copies of one file) so that each split gets its share of each class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slipway.training.data.sources import raise_faults

Ids = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def place(sizes_n: Ids, counts: Sequence[Counter[int]], labels: Sequence[str], *, shares_s: Shares, seed: int) -> Ids:
    """Return the split of each unit, `INT64 [n]`, numbered as `shares_s`.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas: "On the Stratification of Multi-Label Data", 2011) of units
    of any size: the rarest class first, its largest units first, each to the split that it overfills least. The last
    units of a class go to splits that have none of it, so a class in three units is in three splits, unless its units
    were placed for the sake of rarer classes.

    Args:
        sizes_n: the number of images of each unit.
        counts: the number of images of each class id in each unit.
        shares_s: the share of each split in the images; positive, sum 1.
        seed: determines the order of equally large units.

    Raises:
        DataError: a class is in fewer units than there are splits.
    """
    shuffled = np.random.default_rng(seed).permutation(len(sizes_n))
    order = shuffled[np.argsort(-sizes_n[shuffled], kind="stable")].tolist()
    units_of: list[list[int]] = [[] for _ in labels]
    for unit in order:
        for class_id in counts[unit]:
            units_of[class_id].append(unit)
    raise_faults(
        [f"{labels[c]!r}: in {len(units)}" for c, units in enumerate(units_of) if len(units) < len(shares_s)],
        what=f"classes are in fewer than {len(shares_s)} different images or groups, but each must be in every split; "
        "add images, or remove the class",
    )
    placement = _Placement(sizes_n, counts, classes=len(labels), shares_s=shares_s)
    for class_id in np.argsort([len(units) for units in units_of], kind="stable").tolist():
        waiting = [unit for unit in units_of[class_id] if placement.split_n[unit] < 0]
        for index, unit in enumerate(waiting):
            placement.put(unit, class_id, left=len(waiting) - index)
    for unit in order:
        if placement.split_n[unit] < 0:  # images with none of the labels
            placement.put_anywhere(unit)
    return placement.split_n


class _Placement:
    """The content of each split so far."""

    def __init__(self, sizes_n: Ids, counts: Sequence[Counter[int]], *, classes: int, shares_s: Shares) -> None:
        self._sizes_n, self._counts = sizes_n, counts
        self._wanted_s = shares_s * sizes_n.sum()
        totals: Counter[int] = Counter()
        for count in counts:
            totals.update(count)
        self._wanted_sc = shares_s[:, None] * np.array([totals[class_id] for class_id in range(classes)])
        self._held_s, self._held_sc = np.zeros(len(shares_s)), np.zeros((len(shares_s), classes))
        self.split_n = np.full(len(sizes_n), -1, np.int64)

    def put(self, unit: int, class_id: int, *, left: int) -> None:
        """Place `unit`, the first of the `left` remaining units of the class."""
        held_s = self._held_sc[:, class_id]
        lacking = np.flatnonzero(held_s == 0).tolist()
        allowed = lacking if len(lacking) >= left else range(len(held_s))
        # Rounding keeps equal shares equal whatever the order of the sums.
        fill_s = ((held_s + self._counts[unit][class_id]) / self._wanted_sc[:, class_id]).round(9)
        overall_s = self._overall(unit)
        self._hold(unit, min(allowed, key=lambda s: (fill_s[s], overall_s[s])))

    def put_anywhere(self, unit: int) -> None:
        self._hold(unit, int(self._overall(unit).argmin()))

    def _overall(self, unit: int) -> Shares:
        fill_s: Shares = ((self._held_s + self._sizes_n[unit]) / self._wanted_s).round(9)
        return fill_s

    def _hold(self, unit: int, split: int) -> None:
        self.split_n[unit] = split
        self._held_s[split] += self._sizes_n[unit]
        for class_id, count in self._counts[unit].items():
            self._held_sc[split, class_id] += count
