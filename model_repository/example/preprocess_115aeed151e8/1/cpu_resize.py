"""Resizes a decoded batch on a CPU, by the SIMD kernels of Rust's fast_image_resize.

With `linear`, pixels are Pillow's, and so torchvision's, within a grey level. DALI's graph, which a GPU runs, repeats
an image's border outwards, and differs there.

This file is copied into model repositories: numpy and cykooz_resizer alone, Python 3.10 to 3.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeOptions, Resizer, ResizerThreadPool
from cykooz_resizer.structs import Algorithm

from .scaled_jpeg import Decoded

Pixels = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.int64]
"""Height and width."""
FILTERS = {"linear": FilterType.bilinear, "cubic": FilterType.catmull_rom}


class CpuResize:
    """Resizes and centres decoded images in the network's input.

    Args:
        config: the content of `preprocess.json`.
        threads: how many threads share the rows of an image.
    """

    def __init__(self, config: Mapping[str, Any], *, threads: int) -> None:
        self._input_hw = config["input_height"], config["input_width"]
        self._crop, self._pad_value = config["resize"] == "crop", config["pad_value"]
        # With a cubic kernel and a box, fast_image_resize 6.1 reads outside of its rows: where the box begins at the
        # centre of a pixel, the first column has no use for a neighbour that the second one needs.
        self._whole = self._crop and config["interpolation"] == "cubic"
        self._resizer = Resizer()
        self._options = ResizeOptions(use_alpha=False, thread_pool=ResizerThreadPool(threads) if threads > 1 else None)
        # `ResizeAlg` has no name for a kernel of a fixed size, which is what resizing without antialiasing means.
        algorithm = Algorithm.convolution if config["antialias"] else Algorithm.interpolation
        self._options.rust_options = self._options.rust_options.set_resize_alg(
            algorithm.value, FILTERS[config["interpolation"]].value, 2
        )

    def __call__(
        self, images: Sequence[Decoded], new_2n: npt.NDArray[np.int64], position_2n: npt.NDArray[np.float64]
    ) -> Pixels:
        """Return the pixels, UINT8 `[n, H, W, 3]`.

        Args:
            new_2n, position_2n: as `geometry` gives them.
        """
        input_21 = np.array([self._input_hw]).T
        pixels_nhwc_u8 = np.full((len(images), *self._input_hw, 3), self._pad_value, np.uint8)
        if self._crop:  # what would be cut off is not resized
            offset_2n = np.rint(position_2n * (new_2n - input_21)).astype(np.int64)
            first_2n, size_2n = np.zeros_like(new_2n), np.broadcast_to(input_21, new_2n.shape)
        else:
            offset_2n, first_2n, size_2n = np.zeros_like(new_2n), (input_21 - new_2n + 1) // 2, new_2n
        for image, out, new_hw, offset_hw, (top, left), (height, width) in zip(
            images, pixels_nhwc_u8, new_2n.T, offset_2n.T, first_2n.T, size_2n.T, strict=True
        ):
            if self._whole:
                whole = np.empty((*new_hw, 3), np.uint8)
                self._resize(image, new_hw, np.zeros_like(new_hw), whole)
                out[:] = whole[offset_hw[0] : offset_hw[0] + height, offset_hw[1] : offset_hw[1] + width]
            else:
                self._resize(image, new_hw, offset_hw, out[top : top + height, left : left + width])
        return pixels_nhwc_u8

    def _resize(self, image: Decoded, new_hw: Sizes, offset_hw: Sizes, out: Pixels) -> None:
        """Resize `image` to `new_hw`, and write into `out` what begins there at `offset_hw`."""
        height, width = image.pixels.shape[:2]
        start_hw = np.array(image.start_hw)
        step_hw = (image.end_hw - start_hw) / new_hw
        top, left = (start_hw + offset_hw * step_hw).tolist()
        tall, wide = (np.array(out.shape[:2]) * step_hw).tolist()
        # Rounding may reach beyond the image by less than a billionth of a pixel, which is refused.
        self._options.crop_box = CropBox(left, top, min(wide, width - left), min(tall, height - top))
        resized = ImageData(out.shape[1], out.shape[0], PixelType.U8x3)
        given = ImageData(width, height, PixelType.U8x3, image.pixels.tobytes())
        self._resizer.resize(given, resized, self._options)
        out[:] = np.frombuffer(resized.get_buffer(), np.uint8).reshape(out.shape)
