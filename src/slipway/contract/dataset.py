"""`Dataset`: every image with its class, hash and split; `dataset.json` travels with checkpoint and bundle."""

from pathlib import Path
from typing import Literal

from slipway.contract.base import Contract
from slipway.contract.errors import DataError
from slipway.contract.files import sha256_bytes

FILE_NAME = "dataset.json"
Split = Literal["train", "validation", "test"]


class LabelledImage(Contract):
    """One file; `path` is relative to the data set's root, with forward slashes."""

    path: str
    class_id: int
    sha256: str
    split: Split


class Dataset(Contract):
    """The images of one classifier, and the split that every stage uses."""

    root: str
    """As the spec gives it: relative to where the commands are run."""
    labels: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    def of(self, split: Split) -> list[LabelledImage]:
        return [image for image in self.images if image.split == split]

    def load(self, image: LabelledImage) -> bytes:
        """The bytes of one image, checked.

        Raises:
            DataError: the file is gone, or is not the one that was split.
        """
        path = Path(self.root) / image.path
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; run this from where training was run") from None
        if sha256_bytes(encoded) != image.sha256:
            raise DataError(f"{path}: changed since the data set was split; train again, or restore the file")
        return encoded
