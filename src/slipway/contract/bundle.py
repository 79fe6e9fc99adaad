"""`Bundle`: the immutable result of training, and its `BundleEngine`s, opened with every hash checked."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from slipway.contract.decision import Decision
from slipway.contract.engine import HEAD_INPUT, INPUT, EngineSettings, GatedEngine, check_calibration_list, check_graph
from slipway.contract.labels import read_labels
from slipway.contract.manifest import Manifest, Sha256
from slipway.contract.preprocess import Preprocess
from slipway.contract.spec import Spec
from slipway.contract.typed_file import Contract
from slipway.errors import ManifestError
from slipway.system.files import sha256_bytes, sha256_file

ClassId = Annotated[int, Field(ge=0)]
IDENTITY = ("model.onnx", "preprocess.json", "labels.txt", "decision.json", "calibration.json")
"""The files that identify a bundle. `model.onnx` is written without `metadata_props`."""
HEAD, BASE = "head.npz", "base.json"
HEAD_IDENTITY = (HEAD, BASE, "preprocess.json", "labels.txt", "decision.json")
"""The files that identify the bundle of a head, which has no graph of its own (docs/adr/0060)."""


def bundle_id(folder: Path) -> str:
    """sha256 over the names and hashes of the identity files: equal in any clone and environment."""
    return identity(folder, HEAD_IDENTITY if (folder / BASE).is_file() else IDENTITY)


def identity(folder: Path, names: Iterable[str]) -> str:
    """sha256 over the names and hashes of these files."""
    hashes = {name: sha256_file(folder / name) for name in names}
    return sha256_bytes(json.dumps(hashes, sort_keys=True).encode())


class BaseLink(Contract):
    """`base.json` of a head: the base whose embedding it takes."""

    id: Sha256
    name: str
    embedding_size: int = Field(ge=1)


class CalibrationImage(Contract):
    """One file of `calibration/`."""

    file: str = Field(pattern=r"^[0-9A-Za-z_-]+[.][0-9a-z]+$")
    class_id: ClassId | tuple[ClassId, ...]
    """Class id of the image; for multi-label, a list of ids, which may be empty."""
    sha256: Sha256


class CalibrationList(Contract):
    """`calibration.json`: the sample that sets the INT8 ranges."""

    images: tuple[CalibrationImage, ...]

    @classmethod
    def load(cls, folder: Path) -> list[tuple[CalibrationImage, bytes]]:
        """Every calibration image of a bundle or base with its bytes, in recorded order.

        Raises:
            ManifestError: an image is missing or differs from the one listed.
        """
        images = []
        for entry in cls.read(folder / "calibration.json").images:
            path = folder / "calibration" / entry.file
            if sha256_file(path) != entry.sha256:
                raise ManifestError(f"{path}: not the image that calibration.json lists; export the bundle again")
            images.append((entry, path.read_bytes()))
        return images


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
    base: BaseLink | None = None
    """The base of a head; None for a classifier with a graph of its own."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ManifestError: a file is missing, added or changed; names it."""
        manifest = Manifest.open(path, kind="bundle")
        found = bundle_id(path)
        if manifest.bundle != found:
            raise ManifestError(f"{path}: the files make bundle {found[:12]}; the manifest says {manifest.bundle}")
        bundle = cls(
            path=path,
            id=found,
            manifest=manifest,
            spec=Spec.read(path / "spec.json"),
            preprocess=Preprocess.read(path / "preprocess.json"),
            decision=Decision.read(path / "decision.json"),
            labels=read_labels(path / "labels.txt"),
            base=BaseLink.read(path / BASE) if (path / BASE).is_file() else None,
        )
        thresholds, labels = bundle.decision.thresholds, bundle.labels
        if thresholds is not None and len(thresholds) != len(labels):
            raise ManifestError(
                f"{path}: decision.json has {len(thresholds)} thresholds for {len(labels)} labels; build it again"
            )
        unknown = bundle.decision.unknown
        if unknown is not None and unknown.class_means is not None and unknown.class_means.size % len(labels):
            raise ManifestError(
                f"{path}: decision.json has class means of {unknown.class_means.size} numbers, which is not a "
                f"multiple of {len(labels)} labels; build it again"
            )
        return bundle

    def require_graph(self) -> None:
        """Raises ManifestError: the bundle is that of a head, which has no graph to compile."""
        if self.base is not None:
            raise ManifestError(
                f"{self.path}: a head of {self.base.name}, without a graph of its own; slipway head makes its engines"
            )

    def open_engine(self, path: Path) -> "BundleEngine":
        """Open an engine of this bundle, as `BundleEngine.open` does."""
        return BundleEngine.open(path, bundle=self)


@dataclass(frozen=True)
class BundleEngine(GatedEngine):
    """The engine of a bundle, which it is opened with."""

    decision: Decision
    """Decision fitted to this engine's own outputs on the validation split."""

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a file changed, or the bundle, calibration list or graph is not this engine's."""
        manifest = Manifest.open(path, kind="engine")
        if manifest.bundle != bundle.id:
            raise ManifestError(
                f"{path}: this engine was compiled from bundle {str(manifest.bundle)[:12]}, but the given bundle is "
                f"{bundle.id:.12}; compile it again from that bundle"
            )
        engine = cls(
            path=path,
            manifest=manifest,
            settings=EngineSettings.read(path / "engine.json"),
            decision=Decision.read(path / "decision.json"),
        )
        taken = INPUT if bundle.base is None else HEAD_INPUT
        if engine.settings.input != taken:
            raise ManifestError(
                f"{path}: its graph takes {engine.settings.input}, but the steps hand over {taken}; compile it again"
            )
        if bundle.base is None:
            check_calibration_list(path, engine.settings, bundle.path)
        unknown, expected = engine.decision.unknown, len(bundle.labels) * engine.settings.embedding_size
        if unknown is not None and unknown.class_means is not None and unknown.class_means.size != expected:
            raise ManifestError(
                f"{path}: decision.json has class means of {unknown.class_means.size} numbers, but its labels and "
                f"embedding need {expected}; compile again"
            )
        check_graph(path, engine.settings, HEAD if bundle.base else "model.onnx")
        return engine
