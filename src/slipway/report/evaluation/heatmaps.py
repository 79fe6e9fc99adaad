"""Holds the heat maps of where the network looked, shown beside the mistakes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway.pages.thumbnails import Thumbnail


@dataclass(frozen=True)
class Heatmaps:
    """Heat maps by image and label, or the reason why there are none."""

    explained: str = ""
    """A sentence that explains the heat maps, or says why the page has none."""
    pictures: Mapping[tuple[str, str], Thumbnail] = field(default_factory=dict)


WITHOUT = Heatmaps("Grad-CAM was not requested.")
