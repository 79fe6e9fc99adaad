"""`Base`: a backbone without a head, which many heads share (docs/adr/0060); its spec, and its engines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.bundle import Bundle, BundleEngine, identity
from slipway.contract.engine import INPUT, EngineSettings, GatedEngine, check_calibration_list, check_graph
from slipway.contract.manifest import FILE_NAME, Manifest, Sha256
from slipway.contract.preprocess import Preprocess
from slipway.contract.serving import Serving
from slipway.contract.spec import (
    Backbone,
    Calibration,
    PathText,
    Precision,
    Spec,
    TensorRT,
    check_name,
    check_optimal_batch,
    distinct,
)
from slipway.contract.typed_file import Contract
from slipway.errors import ManifestError

BASE_IDENTITY = ("model.onnx", "preprocess.json", "calibration.json")
"""The files that identify a base."""


class EmbeddingGate(Contract):
    """Allowed differences between an engine's embeddings and FP32's, on images that the calibration did not see. The
    heads that stand on the engine have an accuracy gate each."""

    min_cosine: float = Field(default=0.9, gt=0.0, le=1.0)
    """Lowest mean cosine of an engine's embedding and FP32's."""
    images: int = Field(default=200, ge=20)
    """Number of images by which each engine is judged."""


class BaseSpec(Contract):
    """One base, from its weights to its engines."""

    name: Annotated[str, AfterValidator(check_name)]
    """Name of the base, and by default of its run below `runs`: 1 to 63 of a-z, 0-9 and _, beginning with a letter."""
    backbone: Backbone
    """The timm model whose embedding the heads share, by its name; `auto` is not taken."""
    images: PathText
    """Folder of images of any kind, in any sub-folders, like those that the heads will see. They set the ranges of
    INT8, and judge the engines; no label is needed. Relative to the working directory."""
    preprocess: Preprocess | None = None
    """Preparation of the images; by default timm's, as the weights were trained."""
    calibration: Calibration = Calibration()
    """How many of `images` set the ranges of INT8 and FP8, and by which method."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), AfterValidator(distinct)] = ("int8",)
    """Precisions that may be served, as in the spec of a classifier."""
    embedding: EmbeddingGate = EmbeddingGate()
    """Allowed differences between an engine's embeddings and FP32's."""
    serving: Serving = Serving()
    """Options of the base's step in Triton."""
    tensorrt: TensorRT = TensorRT()
    """Build options of the base's plans for the gpu lane."""

    @model_validator(mode="after")
    def _the_optimal_batch_is_served(self) -> Self:
        check_optimal_batch(self.tensorrt, self.serving)
        return self


class GroupBase(Contract):
    """`base.json` of a group of heads in a repository: what its embeddings are of."""

    id: Sha256
    """The base."""
    graph_sha256: Sha256
    """The graph that its engine runs, or was compiled from."""


@dataclass(frozen=True)
class Base:
    """A base whose files all match its manifest."""

    path: Path
    id: str
    manifest: Manifest
    spec: BaseSpec
    preprocess: Preprocess

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ManifestError: a file is missing, added or changed; names it."""
        manifest = Manifest.open(path, kind="base")
        found = identity(path, BASE_IDENTITY)
        if manifest.bundle != found:
            raise ManifestError(f"{path}: the files make base {found[:12]}; the manifest says {manifest.bundle}")
        return cls(
            path=path,
            id=found,
            manifest=manifest,
            spec=BaseSpec.read(path / "spec.json"),
            preprocess=Preprocess.read(path / "preprocess.json"),
        )

    def open_engine(self, path: Path) -> "BaseEngine":
        """Open an engine of this base, as `BaseEngine.open` does."""
        return BaseEngine.open(path, base=self)


@dataclass(frozen=True)
class BaseEngine(GatedEngine):
    """The engine of a base, which it is opened with; the gate judges its embeddings."""

    @classmethod
    def open(cls, path: Path, *, base: Base) -> Self:
        """Raises ManifestError: a file changed, or the base, calibration list or graph is not this engine's."""
        manifest = Manifest.open(path, kind="engine")
        if manifest.bundle != base.id:
            raise ManifestError(
                f"{path}: this engine was compiled from {str(manifest.bundle)[:12]}, but the given base is "
                f"{base.id:.12}; run slipway base again, and slipway compile for the gpu lane"
            )
        settings = EngineSettings.read(path / "engine.json")
        if settings.input != INPUT:
            raise ManifestError(
                f"{path}: its graph takes {settings.input}, but steps hand over {INPUT}; compile it again"
            )
        check_calibration_list(path, settings, base.path)
        check_graph(path, settings, "model.onnx")
        return cls(path, manifest, settings)


AnyEngine_co = TypeVar("AnyEngine_co", bound=BundleEngine | BaseEngine, covariant=True)


class Owner(Protocol[AnyEngine_co]):
    """A bundle or a base: what graphs and engines are made of, and opened with."""

    @property
    def path(self) -> Path: ...

    @property
    def id(self) -> str: ...

    @property
    def manifest(self) -> Manifest: ...

    @property
    def spec(self) -> Spec | BaseSpec: ...

    @property
    def preprocess(self) -> Preprocess: ...

    def open_engine(self, path: Path, /) -> AnyEngine_co: ...


def open_network(path: Path) -> Bundle | Base:
    """The bundle or base in a folder, whichever it is.

    Raises:
        ManifestError: it is neither, it is damaged, or it is the bundle of a head, which has no graph.
    """
    if (path / FILE_NAME).is_file() and Manifest.read(path / FILE_NAME).kind == "base":
        return Base.open(path)
    bundle = Bundle.open(path)
    bundle.require_graph()
    return bundle
