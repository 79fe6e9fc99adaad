"""Encoded images to the network's input and statuses, image by image: guard, nvImageCodec, then DALI's `fit`.

DALI fails a batch for one image that its decoder refuses. nvImageCodec, the decoder inside DALI, answers each image by
itself, so a bad one costs the others nothing. The graph after the decoder is that of `dali_graph`.

This file is copied into model repositories: numpy, DALI, nvImageCodec and the guard alone, Python 3.10 to 3.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia import nvimgcodec
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.backend import TensorCPU, TensorGPU

from . import guard
from .batch_limits import measure, pieces
from .dali_graph import fit

OPTIONS = ":fancy_upsampling=1"
"""Chroma is interpolated on a GPU as libjpeg-turbo does it on a CPU; nvImageCodec 0.8 has this off by default."""


class IsolatedPreprocessor:
    """Encoded images in, network input and statuses out; one bad image never harms another.

    Args:
        config: the content of `preprocess.json`; its `decoder` is not read.
        max_batch_size: the most images that one `run` takes.
        threads: worker threads of the decoder, and of DALI on a CPU.
        device_id: the GPU that decodes and resizes; None is the CPU.
        hardware_jpeg: let a GPU's hardware JPEG decoder decode too, which reports success for a damaged image.

    Raises:
        RuntimeError: the decoder cannot decode a good image on this device.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        max_batch_size: int,
        threads: int,
        device_id: int | None,
        hardware_jpeg: bool = False,
    ) -> None:
        self._device_id = device_id
        self._decoder = nvimgcodec.Decoder(
            device_id=types.CPU_ONLY_DEVICE_ID if device_id is None else device_id,
            max_num_cpu_threads=threads,
            backends=_backends(device_id, hardware_jpeg),
            options=OPTIONS,
        )
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=config["exif_orientation"], color_spec=nvimgcodec.ColorSpec.SRGB
        )

        @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
            batch_size=max_batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1
        )
        def pipeline() -> Any:
            device = "cpu" if device_id is None else "gpu"
            images = fn.external_source(name="images", device=device, batch=True, no_copy=True, layout="HWC")
            return fit(images, config)

        self._pipeline = pipeline()
        self._pipeline.build()
        (self._placeholder,) = self._decode([guard.PLACEHOLDER])
        if self._placeholder is None:
            where = "the CPU" if device_id is None else f"GPU {device_id}"
            raise RuntimeError(f"nvImageCodec {nvimgcodec.__version__} cannot decode on {where}")

    def run(self, images: Sequence[bytes]) -> tuple[Any, npt.NDArray[np.int32]]:
        """Preprocess 1 to `max_batch_size` encoded images.

        Returns:
            pixels_nchw: FP32 `[n, 3, H, W]`: a numpy array, or, on a GPU, a `DeviceBatch`, valid until the next
                `run`. A refused image has the placeholder's pixels.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        status_n, declared_n = measure(images)
        cut = pieces(declared_n)
        if len(cut) == 1:
            return self._on_device(self._fit(images, status_n)), status_n
        # Images too large to be decoded at once are rare: their pixels are put together on the CPU.
        fitted = [self._fit(images[piece], status_n[piece]).as_cpu().as_array() for piece in cut]
        return np.concatenate(fitted), status_n

    def _fit(self, images: Sequence[bytes], status_n: npt.NDArray[np.int32]) -> Any:
        """The list of DALI's tensors for `images`; what is not decoded becomes CORRUPT in `status_n`."""
        rows = np.flatnonzero(status_n == guard.OK)
        decoded = [self._placeholder] * len(images)
        for row, image in zip(rows, self._decode([images[row] for row in rows]), strict=True):
            if image is None:
                status_n[row] = guard.CORRUPT
            else:
                decoded[row] = image
        # Not copied, so `decoded` is kept for the run. The decoder's work is ordered by CUDA's default stream.
        on_gpu = self._device_id is not None
        self._pipeline.feed_input("images", decoded, cuda_stream=0 if on_gpu else None)
        (pixels,) = self._pipeline.run()
        return pixels

    def _decode(self, images: Sequence[bytes]) -> list[Any]:
        """RGB `UINT8 [h, w, 3]` of each image on the device, or None for an image that could not be decoded."""
        streams = [nvimgcodec.CodeStream(guard.for_decoder(image)) for image in images]
        decoded = self._decoder.decode(streams, params=self._params)
        if self._device_id is not None:
            return list(decoded)
        return [None if image is None else np.asarray(image) for image in decoded]

    def _on_device(self, pixels: Any) -> Any:
        return pixels.as_array() if self._device_id is None else DeviceBatch(pixels.as_tensor(), self._device_id)


def tensor_of(pixels_nchw: Any, rows: slice) -> TensorCPU | TensorGPU:
    """Some rows of a batch of `run` as DALI's tensor, for `Tensor.from_dlpack` of Triton's Python backend.

    Nothing is copied, and the batch has to outlive the tensor. numpy's own `__dlpack__` will not do: the backend gives
    the capsule a name that numpy's destructor does not know.
    """
    part = pixels_nchw[rows]
    return TensorCPU(part) if isinstance(part, np.ndarray) else part


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


def _backends(device_id: int | None, hardware_jpeg: bool) -> list[nvimgcodec.Backend]:
    kinds = nvimgcodec.BackendKind
    allowed = [kinds.CPU_ONLY] if device_id is None else [kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU, kinds.CPU_ONLY]
    if device_id is not None and hardware_jpeg:
        allowed.insert(0, kinds.HW_GPU_ONLY)
    return [nvimgcodec.Backend(kind) for kind in allowed]
