"""The bundle's calibration images as pixels: decoded anew on every pass, so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

from slipway.contract import Bundle, QuantizeError
from slipway.contract.bundle import CalibrationList
from slipway.evaluation.predict import Float, pixel_batches

BATCH = 16


class CalibrationSample:
    """Calibration images through the serving preprocess, in the recorded order.

    Raises:
        QuantizeError: fewer images than the spec asks for, or all of one class.
        ManifestError: an image that is not the one on the bundle's list.
    """

    def __init__(self, bundle: Bundle) -> None:
        asked = bundle.spec.calibration.images
        self._files, self._preprocess = bundle.load_calibration(), bundle.preprocess
        if len(self) < asked:
            raise QuantizeError(
                f"{bundle.path}: {len(self)} calibration images, and the spec asks for {asked}; make the bundle again "
                f"from enough images, or write calibration.images: {len(self)} into the spec and make it again"
            )
        listing = CalibrationList.read(bundle.path / "calibration.json")
        if len({image.class_id for image in listing.images}) == 1:
            found = listing.images[0].class_id
            named = ", ".join(repr(bundle.labels[i]) for i in ((found,) if isinstance(found, int) else found)) or "none"
            raise QuantizeError(
                f"{bundle.path}: all {len(self)} calibration images are of class {named}; they say nothing of "
                "the others, so make the bundle again from images of every class"
            )

    def __len__(self) -> int:
        return len(self._files)

    def pixels(self, *, images: int | None = None, what: str = "") -> Iterator[Float]:
        """`pixels_nchw` `[1, 3, H, W]` of each image, or of `images` that are evenly spaced in the list.

        The list is sorted by class, so the first ones would all be of one class.
        """
        count = min(images or len(self), len(self))
        files = [self._files[index * len(self) // count] for index in range(count)]
        batches = pixel_batches(iter(files), preprocess=self._preprocess, batch_size=BATCH, total=count, what=what)
        return (batch[row : row + 1] for batch in batches for row in range(len(batch)))

    def stacked(self, *, images: int, what: str) -> Float:
        """The same in one array, for a few images that are used many times."""
        return np.concatenate(list(self.pixels(images=images, what=what)))
