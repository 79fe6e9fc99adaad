"""`Preprocess`: the only definition of how encoded bytes become the network's input."""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.contract.typed_file import Contract

Channel = Annotated[float, Field(ge=0.0, le=1.0)]
Deviation = Annotated[float, Field(gt=0.0, le=1.0)]
Decoder = Literal["cpu", "mixed"]
"""On a CPU, by libjpeg-turbo and its like; or on a GPU, by nvJPEG, with the CPU's help."""
PIXEL_LIBRARIES: dict[Decoder, tuple[str, ...]] = {
    "cpu": ("cykooz-resizer", "nvidia-nvimgcodec-cu13", "simplejpeg"),
    "mixed": ("nvidia-dali-cuda130",),
}
"""Distributions that make an evaluation's pixels. Its evidence has their versions."""


class Preprocess(Contract):
    """Decode, orient, resize, crop or pad, normalise: encoded bytes in, FP32 `[3, H, W]` out.

    `crop`: the shorter side is resized to `input / crop_fraction`, then the centre is cut out (timm's `crop_pct`).
    `pad`: the longer side is resized to the input, and the rest is filled with `pad_value`, centred.
    Pixels are scaled to 0..1 before `mean` and `std` apply.
    """

    input_height: int = Field(ge=8, le=4096)
    """Height of the network's input, in pixels."""
    input_width: int = Field(ge=8, le=4096)
    """Width of the network's input, in pixels."""
    resize: Literal["crop", "pad"] = "crop"
    """`crop` fills the input and cuts off what is over; `pad` keeps the whole image and fills what is left."""
    crop_fraction: float = Field(default=1.0, gt=0.1, le=1.0)
    """Part of the resized shorter side that `resize: crop` keeps, like timm's `crop_pct`. The default keeps it all."""
    interpolation: Literal["linear", "cubic"] = "linear"
    """How a resize computes pixels between pixels: `linear` (bilinear) or `cubic` (bicubic)."""
    antialias: bool = True
    """Whether a resize to fewer pixels averages over those that it leaves out."""
    mean: tuple[Channel, Channel, Channel] = (0.485, 0.456, 0.406)
    """Mean of red, green and blue, from 0 to 1, that is subtracted from them. The default is ImageNet's."""
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    """Standard deviation of red, green and blue, at most 1, that they are divided by. The default is ImageNet's."""
    pad_value: int = Field(default=0, ge=0, le=255)
    """Value from 0 to 255 of the pixels that `resize: pad` adds, and of the corners of a rotated training image."""
    exif_orientation: bool = True
    """Whether an image is turned upright as its EXIF data say."""
    jpeg_scaling: bool = True
    """Whether a JPEG of at least four times the size that it is resized to is decoded at a half, a quarter or an eighth
    of its own, to at least twice that size. A CPU then takes about a third of the time. Without `antialias`, and where
    a GPU decodes, every image is decoded in full."""
    colour: Literal["rgb"] = "rgb"
    """Order of the input's channels; there is only `rgb`."""
    decoder: Decoder = "cpu"
    """Where images were decoded when the bundle was evaluated: by libjpeg-turbo (`cpu`) or nvJPEG (`mixed`)."""

    @model_validator(mode="after")
    def _crop_fraction_belongs_to_crop(self) -> Self:
        if self.resize == "pad" and self.crop_fraction != 1.0:
            raise ValueError("crop_fraction belongs to resize: crop; with resize: pad leave it out")
        return self

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return self.input_height, self.input_width

    def for_decoding(self, *, decoder: str) -> str:
        """The text of `preprocess.json` for a step that decodes: `mean` and `std` belong to the engine behind it."""
        text = {name: value for name, value in self.plain().items() if name not in ("mean", "std")}
        return json.dumps(text | {"decoder": decoder}, indent=2, sort_keys=True) + "\n"
