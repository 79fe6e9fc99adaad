"""`preprocess.json` as a graph of DALI, encoded images to pixels: its one implementation up to the normalisation.

Training builds its augmentation behind `decode`; calibration, evaluation and both lanes run `preprocess`. `config` is
the content of `preprocess.json` everywhere; `mean` and `std` are not read.

This file is copied into model repositories, and on the gpu lane imported outside a package: DALI and `geometry` alone,
Python 3.10 to 3.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nvidia.dali import fn, math, types

try:
    from .geometry import geometry
except ImportError:  # the native form's files lie in no package
    from geometry import geometry  # type: ignore[import-not-found, no-redef, unused-ignore]

INTERPOLATION = {"linear": types.INTERP_LINEAR, "cubic": types.INTERP_CUBIC}


HARDWARE_SHARE = 0.65
"""DALI's own default: the share of a batch that goes to the hardware JPEG decoder, where that is switched on."""


def preprocess(encoded: Any, config: Mapping[str, Any], *, hardware_jpeg: bool = False) -> Any:
    """Encoded bytes to pixels of the network's size, `UINT8 [H, W, 3]`.

    The image's size is read from its header, not from the decoded image: NVIDIA's backend runs every pipeline in the
    older one of DALI's executors, where nothing comes back from the GPU, and sizes are computed on the CPU.
    """
    shape = fn.peek_image_shape(encoded, adjust_orientation=config["exif_orientation"])
    return fit(decode(encoded, config, hardware_jpeg=hardware_jpeg), config, shape=shape)


def decode(encoded: Any, config: Mapping[str, Any], *, hardware_jpeg: bool = False) -> Any:
    """Encoded bytes to RGB `UINT8 [h, w, 3]`, oriented by EXIF where the configuration says so.

    A GPU interpolates chroma as a CPU does, and its hardware JPEG decoder, which reports success for a damaged image,
    is off unless `hardware_jpeg` says otherwise. On a CPU neither changes a pixel.
    """
    return fn.decoders.image(
        encoded,
        device=config["decoder"],
        output_type=types.RGB,
        adjust_orientation=config["exif_orientation"],
        jpeg_fancy_upsampling=True,
        hw_decoder_load=HARDWARE_SHARE if hardware_jpeg else 0.0,
    )


def fit(images: Any, config: Mapping[str, Any], *, shape: Any = None) -> Any:
    """Resize and centre `[h, w, 3]` in the input: `UINT8 [H, W, 3]`.

    `shape` is that of `images` as `INT64 [3]` on the CPU; left out, it is taken from them.
    """
    shape = images.shape(device="cpu") if shape is None else shape
    size_hw, size_wh = fn.stack(shape[0], shape[1]), fn.stack(shape[1], shape[0])
    new_hw, position_hw = geometry(size_hw, size_wh, config, largest=math.max, smallest=math.min, constant=_constant)
    position_y, position_x = position_hw
    crop_pos = {"crop_pos_y": position_y, "crop_pos_x": position_x} if config["resize"] == "crop" else {}
    return resize(images, config, fn.cast(new_hw, dtype=types.FLOAT), **crop_pos)


def _constant(values: Sequence[int]) -> Any:
    return types.Constant(list(values), dtype=types.INT64)


def resize(images: Any, config: Mapping[str, Any], new_hw: Any, **crop_pos: Any) -> Any:
    """Resize `[h, w, 3]` to `new_hw` (FP32 `[2]`), then cut or pad to the input: `UINT8 [H, W, 3]`.

    `crop_pos_y` and `crop_pos_x` belong to `resize: crop`.
    """
    how = {"size": new_hw, "interp_type": INTERPOLATION[config["interpolation"]], "antialias": config["antialias"]}
    crop = (config["input_height"], config["input_width"])
    if config["resize"] == "crop":  # what would be cut off is not resized
        return fn.resize_crop_mirror(images, crop=crop, rounding="round", **how, **crop_pos)
    return fn.crop(
        fn.resize(images, **how),
        crop=crop,
        rounding="round",
        out_of_bounds_policy="pad",
        fill_values=[config["pad_value"]],
    )
