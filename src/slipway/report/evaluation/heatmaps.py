"""Pictures of where the network looked, as the page shows them beside the mistakes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway.pages.thumbnails import Thumbnail


@dataclass(frozen=True)
class Heatmaps:
    """By image and label; or why there are none."""

    explained: str = ""
    """What they are, or why the page has none: a sentence."""
    pictures: Mapping[tuple[str, str], Thumbnail] = field(default_factory=dict)


WITHOUT = Heatmaps("No Grad-CAM was asked for.")
