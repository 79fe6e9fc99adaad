"""Normalisation of pixels as `preprocess.json` says: the one arithmetic of training, evaluation and engines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def constants(config: Mapping[str, Any]) -> tuple[Float, Float]:
    """What is taken off each channel, and the factor of what is left: FP32 `[3]` each.

    `(x - offset) * factor` is `(x / 255 - mean) / std`, rounded as DALI's CropMirrorNormalize rounds it.
    """
    offset_c = np.array([255 * channel for channel in config["mean"]], np.float32)
    factor_c = np.float32(1) / np.array([255 * channel for channel in config["std"]], np.float32)
    return offset_c, factor_c


def normalize(pixels_nhwc_u8: Pixels, config: Mapping[str, Any]) -> Float:
    """The network's input: UINT8 `[n, H, W, 3]` to FP32 `pixels_nchw` `[n, 3, H, W]`, in a new array.

    `config` is the content of `preprocess.json`.
    """
    offset_c, factor_c = constants(config)
    pixels_nchw: Float = np.subtract(
        pixels_nhwc_u8.transpose(0, 3, 1, 2), offset_c[:, None, None], dtype=np.float32, order="C"
    )
    pixels_nchw *= factor_c[:, None, None]
    return pixels_nchw
