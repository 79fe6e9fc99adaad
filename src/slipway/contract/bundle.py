"""`Bundle`: the immutable result of training, opened with every hash checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract.decision import Decision
from slipway.contract.errors import ManifestError
from slipway.contract.files import sha256_bytes, sha256_file
from slipway.contract.labels import read_labels
from slipway.contract.manifest import Manifest
from slipway.contract.preprocess import Preprocess
from slipway.contract.spec import Spec

IDENTITY = ("model.onnx", "preprocess.json", "labels.txt", "decision.json", "calibration.json")
"""The files that make a bundle what it is. `model.onnx` is written without `metadata_props`."""


def bundle_id(folder: Path) -> str:
    """sha256 over the names and hashes of the identity files: equal in any clone and environment."""
    hashes = {name: sha256_file(folder / name) for name in IDENTITY}
    return sha256_bytes(json.dumps(hashes, sort_keys=True).encode())


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all what its manifest says."""

    path: Path
    id: str
    manifest: Manifest
    spec: Spec
    preprocess: Preprocess
    decision: Decision
    labels: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ManifestError naming the file that is missing, added or changed."""
        manifest = Manifest.open(path, kind="bundle")
        identity = bundle_id(path)
        if manifest.bundle != identity:
            raise ManifestError(f"{path}: the files make bundle {identity[:12]}, the manifest says {manifest.bundle}")
        bundle = cls(
            path=path,
            id=identity,
            manifest=manifest,
            spec=Spec.read(path / "spec.json"),
            preprocess=Preprocess.read(path / "preprocess.json"),
            decision=Decision.read(path / "decision.json"),
            labels=read_labels(path / "labels.txt"),
        )
        if bundle.decision.thresholds is not None and len(bundle.decision.thresholds) != len(bundle.labels):
            raise ManifestError(
                f"{path}: decision.json has {len(bundle.decision.thresholds)} thresholds for {len(bundle.labels)} labels"
            )
        return bundle

    @property
    def calibration_files(self) -> list[Path]:
        """The calibration images, in the recorded order."""
        entries = json.loads((self.path / "calibration.json").read_text(encoding="utf-8"))
        return [self.path / "calibration" / entry["file"] for entry in entries]
