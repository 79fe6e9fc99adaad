"""Turns images of the data set into small data URIs. Each is encoded anew: only the file's pixels reach the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from slipway.contract import DataError
from slipway.contract.dataset import Dataset, LabelledImage

SIDE = 112
"""Longest side of a thumbnail in pixels."""
QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A picture, or the reason why there is none."""

    data_uri: str = ""
    width: int = 0
    height: int = 0
    flaw: str = ""


class Thumbnails:
    """Thumbnails of a data set's images by path, each made once."""

    def __init__(self, dataset: Dataset | None, *, exif_orientation: bool) -> None:
        self._dataset, self._exif_orientation = dataset, exif_orientation
        self._images = {} if dataset is None else {image.path: image for image in dataset.images}
        self._made: dict[str, Thumbnail] = {}

    def of(self, path: str) -> Thumbnail:
        if path not in self._made:
            self._made[path] = self._make(path)
        return self._made[path]

    def _make(self, path: str) -> Thumbnail:
        if self._dataset is None:
            return Thumbnail(flaw="the bundle has no dataset.json")
        if path not in self._images:
            return Thumbnail(flaw="dataset.json does not list it")
        try:
            return encode(load(self._dataset, self._images[path], exif_orientation=self._exif_orientation))
        except DataError as error:
            return Thumbnail(flaw=str(error))


def load(dataset: Dataset, entry: LabelledImage, *, exif_orientation: bool) -> Image.Image:
    """Load the image in RGB, a large JPEG at reduced size, turned as in serving.

    Raises:
        DataError: the image is missing, has changed since the data set was split, or is too large for Pillow.
    """
    encoded = dataset.load(entry)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a large JPEG is decoded at a fraction of its size
            turned = ImageOps.exif_transpose(image) if exif_orientation else image
            deep = turned.mode.startswith("I")  # 16 bits, which Pillow would clip instead of scaling
            small = (turned.point(lambda value: value * (1 / 256)).convert("L") if deep else turned).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{entry.path}: no thumbnail: {error}") from None
    small.info.clear()  # Pillow would copy a comment of the file into the thumbnail
    return small


def encode(picture: Image.Image | npt.NDArray[np.uint8]) -> Thumbnail:
    """Encode RGB, an image or `[h, w, 3]`, as a data URI of a JPEG with sides of at most SIDE pixels."""
    image = picture.copy() if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{text}", *image.size)
