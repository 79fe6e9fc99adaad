"""Encoded images to pixels of the network's size and statuses, image by image: guard, nvImageCodec, then the resize.

Both lanes, calibration and evaluation call `Preprocessor`. DALI fails a batch for one image that its decoder refuses.
nvImageCodec, the decoder inside DALI, answers each image by itself, so a bad one costs the others nothing. A CPU
resizes by `cpu_resize`, a GPU by the graph of `dali_graph`; the sizes are computed here, by the rule of that graph.

This file is copied into model repositories: numpy, nvImageCodec and the files beside it alone, Python 3.10 to 3.13.
"""

import base64
import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from nvidia import nvimgcodec

from . import guard, scaled_jpeg
from .batch_limits import measure, pieces
from .cpu_resize import CpuResize
from .geometry import geometry
from .scaled_jpeg import Decoded, Seen

OPTIONS = ":fancy_upsampling=1"
"""Chroma is interpolated on a GPU as libjpeg-turbo does it on a CPU; nvImageCodec 0.8 has this off by default."""
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAQABAD"
    "ASIAAhEBAxEB/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/xAAUAQEAAAAAAAAAAAAAAAAAAAAA/8QAFBEBAAAA"
    "AAAAAAAAAAAAAAAAAP/aAAwDAQACEQMRAD8AAA//2Q=="
)
"""A grey JPEG of 16x16 pixels: a GPU that cannot decode it would leave every JPEG to the CPU, in silence."""
CPU_ONLY = -99999
"""What nvImageCodec calls a device that is none: NVIMGCODEC_DEVICE_CPU_ONLY."""
Pixels = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.int64]
"""Heights and widths, INT64 `[2, n]`."""
MOST_CUT_OUT = 0.6
"""What is cut out is decoded alone if it is at most this share of the image. More of a wide image saves nothing."""


class _Part(NamedTuple):
    """The part of an image that is decoded: from the pixel `first_hw` up to the pixel before `end_hw`."""

    full_hw: tuple[int, int]
    first_hw: tuple[int, int]
    end_hw: tuple[int, int]


class Preprocessor:
    """Encoded images in, pixels and statuses out; one bad image never harms another.

    Args:
        config: the content of `preprocess.json`; its `decoder`, `mean` and `std` are not read.
        max_batch_size: the most images that one `run` takes.
        threads: worker threads of the decoder, and of the resize on a CPU.
        device_id: the GPU that decodes and resizes; None is the CPU.
        hardware_jpeg: let a GPU's hardware JPEG decoder decode too, which reports success for a damaged image.

    Raises:
        RuntimeError: the decoder cannot decode a good image on this device; on a GPU, a JPEG without the CPU's help.
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
        self.image_shape = (config["input_height"], config["input_width"], 3)
        self._config, self._device_id, self._threads = config, device_id, threads
        # Without antialiasing a resize picks single pixels, and fewer pixels are others.
        self._scales = device_id is None and config["jpeg_scaling"] and config["antialias"]
        # A cubic cut is made of the whole image: see `cpu_resize`.
        self._cuts_out = device_id is None and config["resize"] == "crop" and config["interpolation"] == "linear"
        self._least_px = scaled_jpeg.KEPT * scaled_jpeg.SCALES[-1] * min(self.image_shape[:2])
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=config["exif_orientation"],
            color_spec=nvimgcodec.ColorSpec.SRGB,
            allow_any_depth=True,
        )
        backends = _backends(device_id, hardware_jpeg)
        if device_id is not None:
            _make_current(device_id)
            self._decoder = self._new_decoder(backends[:-1])  # without the CPU
            self._decode_or_raise(JPEG)
        self._decoder = self._new_decoder(backends)
        self._placeholder = self._decode_or_raise(guard.PLACEHOLDER)
        self._resize = self._new_resize()

    def _new_resize(self) -> Any:
        if self._device_id is None:
            return CpuResize(self._config, threads=self._threads)
        from .dali_resize import DaliResize  # not at the top: a CPU does without DALI, which takes 90 MiB a process

        options = {"max_batch_size": self.max_batch_size, "threads": self._threads}
        return DaliResize(self._config, device_id=self._device_id, **options)

    def _new_decoder(self, backends: Sequence[nvimgcodec.Backend]) -> nvimgcodec.Decoder:
        return nvimgcodec.Decoder(
            device_id=CPU_ONLY if self._device_id is None else self._device_id,
            max_num_cpu_threads=self._threads,
            backends=backends,
            options=OPTIONS,
        )

    def _decode_or_raise(self, image: bytes) -> Any:
        (decoded,) = self._decode([(image, None)])
        if decoded is None:
            where = "the CPU" if self._device_id is None else f"GPU {self._device_id}"
            raise RuntimeError(f"nvImageCodec {nvimgcodec.__version__} cannot decode a good image on {where}")
        return decoded

    def run(self, images: Sequence[bytes]) -> tuple[Pixels, npt.NDArray[np.int32]]:
        """Preprocess up to `max_batch_size` encoded images.

        Returns:
            pixels_nhwc_u8: UINT8 `[n, H, W, 3]`; a refused image has the placeholder's pixels.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        status_n, declared_n = measure(images)
        return self._on_cpu(len(images), self._fit(images, status_n, declared_n)), status_n

    def run_on_gpu(self, images: Sequence[bytes]) -> tuple[Any, npt.NDArray[np.int32]]:
        """As `run`, with at least one image.

        Returns:
            pixels_nhwc_u8: a `DeviceBatch`, valid until the next run; where the images are too large to be decoded or
                resized at once, which is rare, a numpy array.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        assert self._device_id is not None
        status_n, declared_n = measure(images)
        fitted = self._fit(images, status_n, declared_n)
        rows, pixels = next(fitted)
        if rows.stop == len(images):
            from .dali_resize import DeviceBatch

            return DeviceBatch(pixels.as_tensor(), self._device_id), status_n
        return self._on_cpu(len(images), chain([(rows, pixels)], fitted)), status_n

    def _on_cpu(self, count: int, fitted: Iterable[tuple[slice, Any]]) -> Pixels:
        pixels_nhwc_u8 = np.empty((count, *self.image_shape), np.uint8)
        for rows, pixels in fitted:
            pixels_nhwc_u8[rows] = pixels if isinstance(pixels, np.ndarray) else pixels.as_cpu().as_array()
        return pixels_nhwc_u8

    def _fit(
        self, images: Sequence[bytes], status_n: npt.NDArray[np.int32], declared_n: npt.NDArray[np.int64]
    ) -> Iterator[tuple[slice, Any]]:
        """Rows of `images` and their pixels, as numpy's or DALI's; what is not decoded becomes CORRUPT in `status_n`.

        Thin images declare few pixels, and resizing them gives many: those count too.
        """
        for piece in pieces(declared_n):
            decoded = self._decode_good(images[piece], status_n[piece])
            new_2n, position_2n = self._geometry([image.full_hw for image in decoded])
            for part in pieces(new_2n.prod(axis=0)):
                rows = slice(piece.start + part.start, piece.start + part.stop)
                yield rows, self._resize(decoded[part], new_2n[:, part], position_2n[:, part])

    def _decode_good(self, images: Sequence[bytes], status_n: npt.NDArray[np.int32]) -> list[Decoded]:
        decoded = [Decoded.whole(self._placeholder)] * len(images)
        parts: dict[int, _Part | None] = {}
        for row in np.flatnonzero(status_n == guard.OK).tolist():
            found = self._seen(images[row])
            scaled = self._decode_scaled(images[row], found)
            if scaled is None:
                parts[row] = self._cut_out(found)
            else:
                decoded[row] = scaled
        images_and_parts = [(images[row], part) for row, part in parts.items()]
        for (row, part), image in zip(parts.items(), self._decode(images_and_parts), strict=True):
            if image is None:
                status_n[row] = guard.CORRUPT
            else:
                decoded[row] = Decoded.whole(image) if part is None else Decoded.part(image, *part[:2])
        return decoded

    def _seen(self, encoded: bytes) -> Seen | None:
        reads = self._scales or self._cuts_out
        return scaled_jpeg.seen(encoded, by_exif=self._config["exif_orientation"]) if reads else None

    def _decode_scaled(self, encoded: bytes, found: Seen | None) -> Decoded | None:
        """A large JPEG at a fraction of its size.

        None: it has to be decoded in full, or is damaged, which the decoder of all other images judges.
        """
        if not self._scales or found is None or max(found.hw) < self._least_px:
            return None
        (new_height,), (new_width,) = self._geometry([found.hw])[0]
        scale = scaled_jpeg.scale_of(found.hw, (int(new_height), int(new_width)))
        return None if scale == 1 else scaled_jpeg.decode(encoded, scale, found)

    def _cut_out(self, found: Seen | None) -> _Part | None:
        """What the resize looks at of a JPEG; None: of another image, or nearly all of it."""
        if not self._cuts_out or found is None or found.orientation != 1:
            return None
        if self._config["crop_fraction"] ** 2 * min(found.hw) > MOST_CUT_OUT * max(found.hw):
            return None
        new_2n, position_2n = self._geometry([found.hw])
        new_hw, input_hw = new_2n[:, 0], np.array(self.image_shape[:2])
        step_hw = np.array(found.hw) / new_hw
        first_hw = np.rint(position_2n[:, 0] * (new_hw - input_hw)) * step_hw
        # A pixel is an average over `step` pixels to each side of its centre, and of two neighbours at least.
        margin_hw = np.ceil(np.maximum(step_hw, 1)) + 1
        start_hw = np.maximum(np.floor(first_hw - margin_hw), 0).astype(int)
        end_hw = np.minimum(np.ceil(first_hw + input_hw * step_hw + margin_hw), found.hw).astype(int)
        return _Part(found.hw, tuple(start_hw.tolist()), tuple(end_hw.tolist()))

    def _geometry(self, sizes_hw: Sequence[tuple[int, int]]) -> tuple[Sizes, npt.NDArray[np.float64]]:
        """`geometry` of images of these sizes, `[2, n]` each."""
        hw_2n = np.array(sizes_hw, np.int64).reshape(-1, 2).T
        new_2n, position_2n = geometry(
            hw_2n,
            hw_2n[::-1],
            self._config,
            largest=np.maximum,
            smallest=np.minimum,
            constant=lambda values: np.array(values, np.int64)[:, None],
        )
        return new_2n, np.array(position_2n)

    def _decode(self, images: Sequence[tuple[bytes, _Part | None]]) -> list[Any]:
        """RGB `UINT8 [h, w, 3]` of each image, or of its part, on the device; None where it could not be decoded."""
        streams = [_stream(image, part) for image, part in images]
        decoded = self._decoder.decode(streams, params=self._params)
        return [None if image is None else self._with_8_bits(image) for image in decoded]

    def _with_8_bits(self, image: Any) -> Any:
        """Samples of 16 bits rounded to 8, as DALI's decoder does it; nvImageCodec would cut them off."""
        if image.dtype == np.uint8:
            return _as_array(image) if self._device_id is None else image
        rounded = ((_as_array(image.cpu()).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return rounded if self._device_id is None else nvimgcodec.as_image(rounded).cuda()


def _stream(encoded: bytes, part: _Part | None) -> Any:
    stream = nvimgcodec.CodeStream(guard.for_decoder(encoded))
    if part is None:
        return stream
    return stream.get_sub_code_stream(region=nvimgcodec.Region(*part.first_hw, *part.end_hw))


def _as_array(image: Any) -> npt.NDArray[Any]:
    """A host image as numpy's; `np.asarray` would ask for `__array_interface__`, which leaks 32 bytes a call."""
    array: npt.NDArray[Any] = image.__array__(copy=False)
    return array


def _make_current(device_id: int) -> None:
    """Let this thread's CUDA calls without a device, such as the default stream and copies, mean this GPU."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"GPU {device_id}: no driver: {error}") from None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), device_id)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or cuda.cuCtxSetCurrent(context)
    )
    if failed:
        raise RuntimeError(f"GPU {device_id}: the driver cannot use it (CUDA error {failed})")


def _backends(device_id: int | None, hardware_jpeg: bool) -> list[nvimgcodec.Backend]:
    """What may decode, the preferred first and the CPU last."""
    kinds = nvimgcodec.BackendKind
    allowed = [kinds.CPU_ONLY] if device_id is None else [kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU, kinds.CPU_ONLY]
    if device_id is not None and hardware_jpeg:
        allowed.insert(0, kinds.HW_GPU_ONLY)
    return [nvimgcodec.Backend(kind) for kind in allowed]
