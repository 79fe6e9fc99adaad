"""Resizes a decoded batch on a GPU, by the graph of `dali_graph`, and hands out its rows.

This file is copied into model repositories: numpy, DALI and the files beside it alone, Python 3.10 to 3.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, pipeline_def
from nvidia.dali.backend import TensorGPU

from .dali_graph import resize
from .scaled_jpeg import Decoded

SIZES = ("new_hw", "crop_pos_y", "crop_pos_x")
"""The graph's inputs beside the images: see `dali_graph.resize`."""


class DaliResize:
    """Resizes and centres decoded images in the network's input.

    Args:
        config: the content of `preprocess.json`.
        max_batch_size: the most images of one call.
        device_id: the GPU; None is the CPU, which tests compare with.
    """

    def __init__(self, config: Mapping[str, Any], *, max_batch_size: int, threads: int, device_id: int | None) -> None:
        self._config, self._max_batch_size, self._threads = config, max_batch_size, threads
        self._device_id = device_id
        self._sizes = SIZES if config["resize"] == "crop" else SIZES[:1]
        self._pipeline = self._new_pipeline()

    def _new_pipeline(self) -> Any:
        @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
            batch_size=self._max_batch_size,
            num_threads=self._threads,
            device_id=self._device_id,
            prefetch_queue_depth=1,
        )
        def pipeline() -> Any:
            device = "cpu" if self._device_id is None else "gpu"
            images = fn.external_source(name="images", device=device, batch=True, no_copy=True, layout="HWC")
            sizes = {name: fn.external_source(name=name, batch=True, no_copy=True) for name in self._sizes}
            return resize(images, self._config, **sizes)

        built = pipeline()
        built.build()
        return built

    def __call__(
        self, images: Sequence[Decoded], new_2n: npt.NDArray[np.int64], position_2n: npt.NDArray[np.float64]
    ) -> Any:
        """Return DALI's tensors of the pixels, UINT8 `[H, W, 3]` each.

        Args:
            images: whole images on the device.
            new_2n, position_2n: as `geometry` gives them.
        """
        arrays = (np.asarray(array, np.float32) for array in (new_2n.T, *position_2n))
        try:
            # CUDA's default stream orders the decoder's work and this.
            stream = None if self._device_id is None else 0
            self._pipeline.feed_input("images", [image.pixels for image in images], cuda_stream=stream)
            for name, array in zip(self._sizes, arrays, strict=False):
                self._pipeline.feed_input(name, list(array))
            (pixels,) = self._pipeline.run()
        except BaseException:
            self._pipeline = self._new_pipeline()  # what was fed would be the next batch's
            raise
        return pixels


class DeviceBatch:
    """A batch on a GPU, whose slices are DALI's tensors of their rows, without a copy."""

    def __init__(self, batch: Any, device_id: int) -> None:
        self._batch, self._device_id = batch, device_id

    def __getitem__(self, rows: slice) -> TensorGPU:
        return TensorGPU(Rows(self._batch, rows), device_id=self._device_id)


class Rows:
    """Some rows of a dense array with `__cuda_array_interface__`, as such an array; it keeps the whole one alive."""

    def __init__(self, batch: Any, rows: slice) -> None:
        self._batch = batch
        interface = batch.__cuda_array_interface__
        count, *row = interface["shape"]
        start, stop, _ = rows.indices(count)
        address, read_only = interface["data"]
        row_bytes = int(np.prod(row)) * np.dtype(interface["typestr"]).itemsize
        self.__cuda_array_interface__ = {
            **interface,
            "shape": (stop - start, *row),
            "data": (address + start * row_bytes, read_only),
        }
