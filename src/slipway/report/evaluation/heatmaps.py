"""Pictures of where the network looked, as the page shows them beside the mistakes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from slipway.pages.thumbnails import SIDE, Thumbnail, encode


@dataclass(frozen=True)
class Heatmaps:
    """By image and label; or why there are none."""

    explained: str = ""
    """What they are, or why the page has none: a sentence."""
    pictures: Mapping[tuple[str, str], Thumbnail] = field(default_factory=dict)


WITHOUT = Heatmaps("No Grad-CAM was asked for.")


def thumbnail(picture_hwc: npt.NDArray[np.uint8]) -> Thumbnail:
    """An RGB picture, its longer side SIDE pixels."""
    height, width = picture_hwc.shape[:2]
    scale = SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return encode(Image.fromarray(picture_hwc).resize(size, Image.Resampling.BILINEAR))
