"""`Dataset`: every image with its class, hash and split; `dataset.json` travels with checkpoint and bundle."""

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from slipway.contract.typed_file import Contract
from slipway.errors import DataError
from slipway.system.files import sha256_bytes

FILE_NAME = "dataset.json"
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class LabelledImage(Contract):
    """One file; `path` is relative to the data set's root, with forward slashes."""

    path: str
    class_ids: tuple[int, ...]
    """Ascending class ids: one for multi-class, any number for multi-label. `class_id=3` is short for `(3,)`."""
    sha256: str
    split: Split
    group: str | None = None
    """Group of the image, if the data set has groups. The images of a group share a split."""

    @model_validator(mode="before")
    @classmethod
    def _one_class_is_a_tuple_of_one(cls, data: Any) -> Any:
        if isinstance(data, dict) and "class_id" in data and "class_ids" not in data:
            data = {**data, "class_ids": (data["class_id"],)}
            del data["class_id"]
        return data

    @property
    def class_id(self) -> int:
        """The class id of a multi-class image."""
        (class_id,) = self.class_ids
        return class_id


class NewImage(Contract):
    """A labelled image that a data set may take in."""

    file: str
    """Path of the image, whose name says nothing of its format."""
    sha256: str
    label: str
    format: str | None = None
    """Format of the image, such as JPEG; None if it is unknown."""


class Dataset(Contract):
    """The images of one classifier, with the split that every stage uses."""

    root: str
    """Root folder as the spec gives it, relative to the working directory."""
    labels: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    def of(self, split: Split) -> list[LabelledImage]:
        return [image for image in self.images if image.split == split]

    def load(self, image: LabelledImage) -> bytes:
        """The bytes of one image, checked against its hash.

        Raises:
            DataError: the file is missing, or has changed since the split.
        """
        path = Path(self.root) / image.path
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; run this where training ran") from None
        if sha256_bytes(encoded) != image.sha256:
            raise DataError(f"{path}: changed since the data set was split; train again, or restore the file")
        return encoded
