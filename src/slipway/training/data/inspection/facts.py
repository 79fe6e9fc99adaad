"""Looks at every file of a source once: its sha256, its flaw if any, its size and its difference hash."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from slipway.system.files import sha256_bytes
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.near_duplicates import BITS, PLAIN_BITS, Bits, difference_hash, near_groups
from slipway.training.data.inspection.viewer import BATCH, View, Viewer
from slipway.training.data.splits import equal


@dataclass(frozen=True)
class Facts:
    """The facts of all files, in the order of the entries."""

    digests: list[str]
    """The sha256 of each file; empty where it could not be opened."""
    flaws: list[str]
    """The reason why serving would refuse each file; empty where it would not."""
    size_n2: npt.NDArray[np.int64]
    """Width and height in pixels, `[n, 2]`; 0 for a refused file."""
    bits_nb: Bits

    @property
    def readable_n(self) -> npt.NDArray[np.bool_]:
        readable_n: npt.NDArray[np.bool_] = self.size_n2[:, 0] > 0
        return readable_n

    def exact(self) -> list[list[int]]:
        """Return the groups of equal files."""
        return [same for same in equal(self.digests) if self.digests[same[0]]]

    def plain_n(self) -> npt.NDArray[np.bool_]:
        plain_n: npt.NDArray[np.bool_] = self.readable_n & (self.bits_nb.sum(axis=1) < PLAIN_BITS)
        return plain_n

    def near(self) -> list[tuple[list[int], int]]:
        """Return the groups of near duplicates with their smallest distance; one file stands for all its equals."""
        copies = {index for same in self.exact() for index in same[1:]}
        compared = self.readable_n & ~self.plain_n()
        rows = [index for index in np.flatnonzero(compared).tolist() if index not in copies]
        return [([rows[index] for index in group], bits) for group, bits in near_groups(self.bits_nb[rows])]


def look(root: Path, entries: Sequence[Entry], viewer: Viewer) -> Facts:
    """Look at each entry, with a progress bar."""
    digests: list[str] = []
    flaws: list[str] = []
    size_n2, bits_nb = np.zeros((len(entries), 2), np.int64), np.zeros((len(entries), BITS), np.bool_)
    for encoded, view in views(root, entries, viewer, what="looking at images"):
        index = len(digests)
        digests.append("" if encoded is None else sha256_bytes(encoded))
        flaws.append(view if isinstance(view, str) else "")
        if isinstance(view, View):
            size_n2[index] = view.width_px, view.height_px
            bits_nb[index] = difference_hash(view.pixels_hwc)
    return Facts(digests, flaws, size_n2, bits_nb)


def views(
    root: Path, entries: Sequence[Entry], viewer: Viewer, *, what: str
) -> Iterator[tuple[bytes | None, View | str]]:
    """Yield bytes and picture of each entry, in order; no bytes and the reason where a file cannot be opened."""
    with tqdm(total=len(entries), desc=what, unit="image", leave=False, disable=None) as progress:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            encoded = [_load(root / entry.path) for entry in batch]
            seen = iter(viewer.view([data for data in encoded if isinstance(data, bytes)]))
            for data in encoded:
                yield (None, data) if isinstance(data, str) else (data, next(seen))
            progress.update(len(batch))


def _load(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
