"""Encoded images to the network's input, by DALI: the one implementation of `preprocess.json`.

Validation, test, calibration and serving call `Preprocessor`; training builds its augmentation between `decode`
and `normalize`. `config` is the content of `preprocess.json` everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, math, pipeline_def, types

from . import guard

MAX_BATCH_PIXELS = guard.DEFAULT_LIMITS.max_pixels
INTERPOLATION = {"linear": types.INTERP_LINEAR, "cubic": types.INTERP_CUBIC}


def decode(encoded: Any, config: Mapping[str, Any]) -> Any:
    """Encoded bytes to RGB `UINT8 [h, w, 3]`, oriented by EXIF where the configuration says so."""
    return fn.decoders.image(
        encoded, device=config["decoder"], output_type=types.RGB, adjust_orientation=config["exif_orientation"]
    )


def fit(images: Any, config: Mapping[str, Any]) -> Any:
    """Resize and centre `[h, w, 3]` in the input, then normalise: `FP32 [3, H, W]`.

    Sizes and offsets are computed here as torchvision's Resize and CenterCrop do, since DALI's own rounding
    differs by up to a pixel: `int(size * long / short)`, and an offset rounded half to even.
    """
    shape = images.shape(device="cpu")
    size_hw, size_wh = fn.stack(shape[0], shape[1]), fn.stack(shape[1], shape[0])
    input_hw = [config["input_height"], config["input_width"]]
    target_hw = [round(side / config["crop_fraction"]) for side in input_hw]
    crop = config["resize"] == "crop"
    bound = math.max if crop else math.min  # cover the target, or stay inside it
    new_hw = math.max(bound(_constant(target_hw[::-1]) * size_hw // size_wh, _constant(target_hw)), 1)
    resized = fn.resize(
        images,
        size=fn.cast(new_hw, dtype=types.FLOAT),
        interp_type=INTERPOLATION[config["interpolation"]],
        antialias=config["antialias"],
    )
    if not crop:
        return normalize(resized, config)
    surplus_hw = new_hw - _constant(input_hw)
    offset_hw = (surplus_hw + ((surplus_hw // 2) & 1)) // 2  # surplus / 2, rounded half to even
    position_hw = offset_hw / math.max(surplus_hw, 1)
    return normalize(resized, config, crop_pos_y=position_hw[0], crop_pos_x=position_hw[1])


def _constant(values: Sequence[int]) -> Any:
    return types.Constant(list(values), dtype=types.INT64)


def normalize(images: Any, config: Mapping[str, Any], **crop_pos: Any) -> Any:
    """Cut or pad to the input size, then `(x / 255 - mean) / std`: `UINT8 [h, w, 3]` to `FP32 [3, H, W]`."""
    mean, std = np.array(config["mean"], np.float64), np.array(config["std"], np.float64)
    return fn.crop_mirror_normalize(
        images,
        crop=(config["input_height"], config["input_width"]),
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=(mean * 255).tolist(),
        std=(std * 255).tolist(),
        rounding="round",
        out_of_bounds_policy="pad" if config["resize"] == "pad" else "error",
        fill_values=((config["pad_value"] / 255 - mean) / std).tolist(),
        **crop_pos,
    )


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
            device_id=None,
            prefetch_queue_depth=1,
        )
        def pipeline() -> Any:
            encoded = fn.external_source(name="encoded", batch=True, no_copy=True)
            return fit(decode(encoded, config), config)

        self._pipeline = pipeline()
        self._pipeline.build()
        self._placeholder = self._decode([guard.PLACEHOLDER])[0]

    def run(self, images: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Preprocess up to `max_batch_size` encoded images.

        Returns:
            pixels_nchw: FP32 `[n, 3, H, W]`; a refused image has the placeholder's pixels.
            status_n: INT32 `[n]`, the codes of `guard`.
        """
        measured_n2 = np.array([guard.measure(image) for image in images], np.int64).reshape(-1, 2)
        status_n, declared_n = measured_n2[:, 0].astype(np.int32), measured_n2[:, 1]
        pixels_nchw = np.empty((len(images), *self.input_shape), np.float32)
        pixels_nchw[status_n != guard.OK] = self._placeholder
        rows = np.flatnonzero(status_n == guard.OK)
        while len(rows):
            # DALI decodes a batch whole and keeps the memory: eight images of 64 million pixels took 2 GB for good.
            fitting = max(1, int((declared_n[rows].cumsum() <= MAX_BATCH_PIXELS).sum()))
            self._isolate(images, rows[:fitting], pixels_nchw, status_n)
            rows = rows[fitting:]
        return pixels_nchw, status_n

    def _isolate(
        self,
        images: Sequence[bytes],
        rows: npt.NDArray[np.intp],
        pixels_nchw: npt.NDArray[np.float32],
        status_n: npt.NDArray[np.int32],
    ) -> None:
        """Decode `rows`; where DALI refuses the batch, halve it until each bad image stands alone."""
        if not len(rows):
            return
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
        self._pipeline.feed_input("encoded", [np.frombuffer(image, np.uint8) for image in images])
        (pixels,) = self._pipeline.run()
        result: npt.NDArray[np.float32] = pixels.as_array()
        return result
