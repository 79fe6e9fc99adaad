"""Encoded images to the network's input and statuses, image by image: guard, nvImageCodec, then DALI's resize.

Both lanes, calibration and evaluation call `Preprocessor`. DALI fails a batch for one image that its decoder refuses.
nvImageCodec, the decoder inside DALI, answers each image by itself, so a bad one costs the others nothing. What follows
the decoder is the graph of `dali_graph`, and its sizes are computed here, since the decoded images are at hand.

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
from .dali_graph import geometry, resize

OPTIONS = ":fancy_upsampling=1"
"""Chroma is interpolated on a GPU as libjpeg-turbo does it on a CPU; nvImageCodec 0.8 has this off by default."""
SIZES = ("new_hw", "position_y", "position_x")
"""The graph's inputs beside the images: see `geometry`."""


class Preprocessor:
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
        device_id: int | None = None,
        hardware_jpeg: bool = False,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.input_shape = (3, config["input_height"], config["input_width"])
        self._config, self._device_id = config, device_id
        self._sizes = SIZES if config["resize"] == "crop" else SIZES[:1]
        self._decoder = nvimgcodec.Decoder(
            device_id=types.CPU_ONLY_DEVICE_ID if device_id is None else device_id,
            max_num_cpu_threads=threads,
            backends=_backends(device_id, hardware_jpeg),
            options=OPTIONS,
        )
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=config["exif_orientation"],
            color_spec=nvimgcodec.ColorSpec.SRGB,
            allow_any_depth=True,
        )

        @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
            batch_size=max_batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=1
        )
        def pipeline() -> Any:
            device = "cpu" if device_id is None else "gpu"
            images = fn.external_source(name="images", device=device, batch=True, no_copy=True, layout="HWC")
            sizes = {name: fn.external_source(name=name, batch=True, no_copy=True) for name in self._sizes}
            return resize(images, config, **sizes)

        self._pipeline = pipeline()
        self._pipeline.build()
        (self._placeholder,) = self._decode([guard.PLACEHOLDER])
        if self._placeholder is None:
            where = "the CPU" if device_id is None else f"GPU {device_id}"
            raise RuntimeError(f"nvImageCodec {nvimgcodec.__version__} cannot decode on {where}")

    def run(self, images: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Preprocess up to `max_batch_size` encoded images.

        Returns:
            pixels_nchw: FP32 `[n, 3, H, W]`; a refused image has the placeholder's pixels.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        status_n, declared_n = measure(images)
        pixels_nchw = np.empty((len(images), *self.input_shape), np.float32)
        # Images too large to be decoded at once are rare.
        for piece in pieces(declared_n):
            pixels_nchw[piece] = self._fit(images[piece], status_n[piece]).as_cpu().as_array()
        return pixels_nchw, status_n

    def run_on_gpu(self, images: Sequence[bytes]) -> tuple[Any, npt.NDArray[np.int32]]:
        """As `run`, with at least one image.

        Returns:
            pixels_nchw: a `DeviceBatch`, valid until the next run; where the images together are too large to be
                decoded at once, a numpy array.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        status_n, declared_n = measure(images)
        if len(pieces(declared_n)) > 1:
            return self.run(images)
        assert self._device_id is not None
        return DeviceBatch(self._fit(images, status_n).as_tensor(), self._device_id), status_n

    def _fit(self, images: Sequence[bytes], status_n: npt.NDArray[np.int32]) -> Any:
        """The list of DALI's tensors for `images`; what is not decoded becomes CORRUPT in `status_n`."""
        rows = np.flatnonzero(status_n == guard.OK)
        decoded = [self._placeholder] * len(images)
        for row, image in zip(rows, self._decode([images[row] for row in rows]), strict=True):
            if image is None:
                status_n[row] = guard.CORRUPT
            else:
                decoded[row] = image
        # Nothing is copied, so all is kept for the run. The decoder's work is ordered by CUDA's default stream.
        sizes = self._geometry(decoded)
        self._pipeline.feed_input("images", decoded, cuda_stream=None if self._device_id is None else 0)
        for name, values in sizes.items():
            self._pipeline.feed_input(name, values)
        (pixels,) = self._pipeline.run()
        return pixels

    def _geometry(self, decoded: Sequence[Any]) -> dict[str, list[npt.NDArray[np.float32]]]:
        """For each image the inputs of the graph that `SIZES` names."""
        hw_2n = np.array([image.shape[:2] for image in decoded], np.int64).T
        new_2n, position_2n = geometry(
            hw_2n,
            hw_2n[::-1],
            self._config,
            largest=np.maximum,
            smallest=np.minimum,
            constant=lambda values: np.array(values, np.int64)[:, None],
        )
        arrays = (new_2n.T, *position_2n)
        return {name: list(array.astype(np.float32)) for name, array in zip(self._sizes, arrays, strict=False)}

    def _decode(self, images: Sequence[bytes]) -> list[Any]:
        """RGB `UINT8 [h, w, 3]` of each image on the device, or None for an image that could not be decoded."""
        streams = [nvimgcodec.CodeStream(guard.for_decoder(image)) for image in images]
        decoded = self._decoder.decode(streams, params=self._params)
        return [None if image is None else self._with_8_bits(image) for image in decoded]

    def _with_8_bits(self, image: Any) -> Any:
        """Samples of 16 bits rounded to 8, as DALI's decoder does it; nvImageCodec would cut them off."""
        if image.dtype == np.uint8:
            return np.asarray(image) if self._device_id is None else image
        rounded = ((np.asarray(image.cpu()).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return rounded if self._device_id is None else nvimgcodec.as_image(rounded).cuda()


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
