"""Encoded images to the network's input and statuses: the guard, then the graph of `preprocess.json` in DALI.

Validation, test, calibration and serving on the cpu lane call `Preprocessor`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def

from . import guard
from .batch_limits import measure, pieces
from .dali_graph import preprocess


class Preprocessor:
    """Encoded images in, network input and statuses out; one bad image never harms another.

    Args:
        config: the content of `preprocess.json`.
        max_batch_size: the most images that one `run` takes.
        threads: DALI's worker threads.
    """

    def __init__(self, config: Mapping[str, Any], *, max_batch_size: int, threads: int) -> None:
        self.max_batch_size = max_batch_size
        self.input_shape = (3, config["input_height"], config["input_width"])

        # One batch at a time, and its answer is waited for. The default executor, since a pipeline without
        # exec_async refuses every batch after the first that failed.
        @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
            batch_size=max_batch_size,
            num_threads=threads,
            device_id=None if config["decoder"] == "cpu" else 0,  # `mixed` decodes on the first GPU
            prefetch_queue_depth=1,
        )
        def pipeline() -> Any:
            encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
            return preprocess(encoded, config)

        self._pipeline = pipeline()
        self._pipeline.build()
        self._placeholder = self._decode([guard.PLACEHOLDER])[0]

    def run(self, images: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Preprocess up to `max_batch_size` encoded images.

        Returns:
            pixels_nchw: FP32 `[n, 3, H, W]`; a refused image has the placeholder's pixels.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        status_n, declared_n = measure(images)
        pixels_nchw = np.empty((len(images), *self.input_shape), np.float32)
        pixels_nchw[status_n != guard.OK] = self._placeholder
        rows = np.flatnonzero(status_n == guard.OK)
        for piece in pieces(declared_n[rows]):
            self._isolate(images, rows[piece], pixels_nchw, status_n)
        return pixels_nchw, status_n

    def _isolate(
        self,
        images: Sequence[bytes],
        rows: npt.NDArray[np.intp],
        pixels_nchw: npt.NDArray[np.float32],
        status_n: npt.NDArray[np.int32],
    ) -> None:
        """Decode `rows`; where DALI refuses the batch, halve it until each bad image stands alone."""
        try:
            pixels_nchw[rows] = self._decode([images[row] for row in rows])
        except RuntimeError:
            if len(rows) == 1:
                status_n[rows], pixels_nchw[rows] = guard.CORRUPT, self._placeholder
                return
            middle = len(rows) // 2
            self._isolate(images, rows[:middle], pixels_nchw, status_n)
            self._isolate(images, rows[middle:], pixels_nchw, status_n)

    def _decode(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        encoded = [np.frombuffer(guard.for_decoder(image), np.uint8) for image in images]
        self._pipeline.feed_input("encoded", encoded)  # not copied, so kept for the run
        (pixels,) = self._pipeline.run()
        result: npt.NDArray[np.float32] = pixels.as_cpu().as_array()
        return result
