"""`Bundle`: the immutable result of training, opened with every hash checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from slipway.contract.base import Contract
from slipway.contract.decision import Decision
from slipway.contract.labels import read_labels
from slipway.contract.manifest import Manifest, Sha256
from slipway.contract.preprocess import Preprocess
from slipway.contract.spec import Spec
from slipway.errors import ManifestError
from slipway.system.files import sha256_bytes, sha256_file

ClassId = Annotated[int, Field(ge=0)]
IDENTITY = ("model.onnx", "preprocess.json", "labels.txt", "decision.json", "calibration.json")
"""The files that identify a bundle. `model.onnx` is written without `metadata_props`."""


def bundle_id(folder: Path) -> str:
    """sha256 over the names and hashes of the identity files: equal in any clone and environment."""
    hashes = {name: sha256_file(folder / name) for name in IDENTITY}
    return sha256_bytes(json.dumps(hashes, sort_keys=True).encode())


class CalibrationImage(Contract):
    """One file of `calibration/`."""

    file: str = Field(pattern=r"^[0-9A-Za-z_-]+[.][0-9a-z]+$")
    class_id: ClassId | tuple[ClassId, ...]
    """Class id of the image; for multi-label, a list of ids, which may be empty."""
    sha256: Sha256


class CalibrationList(Contract):
    """`calibration.json`: the sample that sets the INT8 ranges."""

    images: tuple[CalibrationImage, ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all match its manifest."""

    path: Path
    id: str
    manifest: Manifest
    spec: Spec
    preprocess: Preprocess
    decision: Decision
    labels: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ManifestError: a file is missing, added or changed; names it."""
        manifest = Manifest.open(path, kind="bundle")
        identity = bundle_id(path)
        if manifest.bundle != identity:
            raise ManifestError(f"{path}: the files make bundle {identity[:12]}; the manifest says {manifest.bundle}")
        bundle = cls(
            path=path,
            id=identity,
            manifest=manifest,
            spec=Spec.read(path / "spec.json"),
            preprocess=Preprocess.read(path / "preprocess.json"),
            decision=Decision.read(path / "decision.json"),
            labels=read_labels(path / "labels.txt"),
        )
        thresholds, labels = bundle.decision.thresholds, bundle.labels
        if thresholds is not None and len(thresholds) != len(labels):
            raise ManifestError(f"{path}: decision.json has {len(thresholds)} thresholds for {len(labels)} labels")
        unknown = bundle.decision.unknown
        if unknown is not None and unknown.class_means is not None and unknown.class_means.size % len(labels):
            raise ManifestError(
                f"{path}: decision.json has class means of {unknown.class_means.size} numbers, which is not a "
                f"multiple of {len(labels)} labels"
            )
        return bundle

    def load_calibration(self) -> list[tuple[str, bytes]]:
        """Name and bytes of every calibration image, in recorded order.

        Raises:
            ManifestError: an image is missing or differs from the one listed.
        """
        images = []
        listing = CalibrationList.read(self.path / "calibration.json")
        for entry in listing.images:
            path = self.path / "calibration" / entry.file
            if sha256_file(path) != entry.sha256:
                raise ManifestError(f"{path}: not the image that calibration.json lists; export the bundle again")
            images.append((entry.file, path.read_bytes()))
        return images
