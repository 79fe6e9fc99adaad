"""Turns encoded images into small pictures with the guard and the decoder of serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def

from slipway.contract import Preprocess
from slipway.steps import guard
from slipway.steps.preprocess import Preprocessor
from slipway.training.data.decodable import DECODE_THREADS

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
