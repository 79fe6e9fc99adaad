"""The calibration images of a bundle or base as pixels, decoded again on every pass so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

from slipway.contract import Bundle, QuantizeError
from slipway.contract.base_bundle import Base
from slipway.contract.bundle import CalibrationList
from slipway.evaluation.predict import pixel_batches
from slipway.steps.normalize import Float, normalize

BATCH = 16


class CalibrationSample:
    """Calibration images after the serving preprocess, in recorded order.

    Raises:
        QuantizeError: there are fewer images than the spec asks for, or all are of one class.
        ManifestError: an image differs from the one on the bundle's list.
    """

    def __init__(self, bundle: Bundle | Base) -> None:
        asked = bundle.spec.calibration.images
        self._images, self._preprocess = CalibrationList.load(bundle.path), bundle.preprocess
        if len(self) < asked:
            raise QuantizeError(
                f"{bundle.path}: {len(self)} calibration images, but the spec asks for {asked}; make the bundle again "
                f"from enough images, or set calibration.images: {len(self)} in the spec and make it again"
            )
        class_ids = {image.class_id for image, _ in self._images}
        if isinstance(bundle, Bundle) and len(class_ids) == 1:
            (found,) = class_ids
            named = ", ".join(repr(bundle.labels[i]) for i in ((found,) if isinstance(found, int) else found)) or "none"
            raise QuantizeError(
                f"{bundle.path}: all {len(self)} calibration images are of class {named}; make the bundle again "
                "from images of every class"
            )

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, *, images: int | None = None, what: str = "") -> Iterator[Float]:
        """`pixels_nchw` `[1, 3, H, W]` of each image, or of `images` evenly spaced in the list.

        The list is sorted by class, so the first ones would all be of one class.
        """
        count = min(images or len(self), len(self))
        chosen = (self._images[index * len(self) // count] for index in range(count))
        files = ((image.file, encoded) for image, encoded in chosen)
        batches = pixel_batches(files, preprocess=self._preprocess, batch_size=BATCH, total=count, what=what)
        config = self._preprocess.model_dump()
        normalised = (normalize(batch, config) for batch in batches)
        return (batch[row : row + 1] for batch in normalised for row in range(len(batch)))

    def stacked(self, *, images: int, what: str) -> Float:
        """`pixels` in one array, for a few images that are used many times."""
        return np.concatenate(list(self.pixels(images=images, what=what)))
