"""The page of one row of the journal: image, answer, where the network looked, and the nearest training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slipway.pages import environment
from slipway.pages.thumbnails import Thumbnail


@dataclass(frozen=True)
class Chance:
    label: str
    probability: float


@dataclass(frozen=True)
class Near:
    picture: Thumbnail
    path: str
    label: str
    cosine: float


@dataclass(frozen=True)
class Explanation:
    """The content of the page. Each part has a sentence that explains it, or says why it is missing."""

    title: str
    answer: str
    image: Thumbnail
    chances: Sequence[Chance]
    facts: Mapping[str, str]
    said: Mapping[str, str]
    """Label by annotator."""
    said_told: str
    near: Sequence[Near]
    near_told: str
    heat: Mapping[str, Thumbnail]
    """Grad-CAM by label."""
    heat_told: str


def render(explanation: Explanation) -> str:
    """The page, which loads nothing; labels and file names are escaped."""
    context = {"title": f"{explanation.title}: explanation", "one": explanation}
    return environment("slipway.report").get_template("explanation.html").render(context)
