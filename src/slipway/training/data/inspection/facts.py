"""Looks at every file of a source once: its sha256, flaw, size, difference hash, and a picture as serving decodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def
from tqdm import tqdm

from slipway.contract import Preprocess
from slipway.steps import guard
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.training.data.decodable import DECODE_THREADS
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.near_duplicates import BITS, PLAIN_BITS, Bits, difference_hash, near_groups
from slipway.training.data.splits import equal

SIDE = 112
"""Length of a picture's longer side in pixels."""
BATCH = 16


@dataclass(frozen=True)
class View:
    """One readable image."""

    width_px: int
    height_px: int
    """Height of the image itself, after EXIF orientation where the spec applies it."""
    pixels_hwc: npt.NDArray[np.uint8]
    """The picture in RGB, its longer side SIDE pixels long."""


class Viewer:
    """Decodes and refuses the same images as serving."""

    def __init__(self, *, exif_orientation: bool) -> None:
        # The serving pipeline for a network whose input is the whole picture.
        values = {"input_height": SIDE, "input_width": SIDE, "resize": "pad"}
        config = Preprocess.parse({**values, "exif_orientation": exif_orientation}, source="viewer").model_dump()
        self._preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=DECODE_THREADS)

        @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
            batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1
        )
        def shapes() -> Any:
            return fn.peek_image_shape(
                fn.external_source(name="encoded", batch=True), adjust_orientation=exif_orientation
            )

        self._shapes = shapes()
        self._shapes.build()

    def view(self, encoded: Sequence[bytes]) -> list[View | str]:
        """Return each of up to BATCH images as a picture, or the reason why serving would refuse it."""
        pixels_nhwc_u8, status_n = self._preprocessor.run(encoded)
        sizes = iter(self._sizes([data for data, status in zip(encoded, status_n, strict=True) if status == guard.OK]))
        return [
            _cut(pixels_hwc, *next(sizes)) if status == guard.OK else guard.STATUS_NAMES[status]
            for pixels_hwc, status in zip(pixels_nhwc_u8, status_n.tolist(), strict=True)
        ]

    def _sizes(self, encoded: Sequence[bytes]) -> list[tuple[int, int]]:
        """Return width and height of decoded images."""
        if not encoded:
            return []
        self._shapes.feed_input("encoded", [np.frombuffer(guard.for_decoder(data), np.uint8) for data in encoded])
        (shapes_n3,) = self._shapes.run()
        return [(int(width), int(height)) for height, width, _ in shapes_n3.as_array()]


def _cut(pixels_hwc: npt.NDArray[np.uint8], width: int, height: int) -> View:
    """Cut off the padding that centres the picture; the sides left are those of `dali_graph.fit`."""
    inner_w, inner_h = max(min(SIDE * width // height, SIDE), 1), max(min(SIDE * height // width, SIDE), 1)
    left, top = (SIDE - inner_w + 1) // 2, (SIDE - inner_h + 1) // 2  # DALI rounds a negative half down
    return View(width, height, np.ascontiguousarray(pixels_hwc[top : top + inner_h, left : left + inner_w]))


@dataclass(frozen=True)
class ImageFacts:
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


def look(root: Path, entries: Sequence[Entry], viewer: Viewer) -> ImageFacts:
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
    return ImageFacts(digests, flaws, size_n2, bits_nb)


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
