"""`Engine`: one compiled form of a bundle's network for one target and precision, with its gate evidence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from slipway.contract.base import Contract
from slipway.contract.errors import ManifestError
from slipway.contract.manifest import Manifest
from slipway.contract.spec import Precision


class EngineSettings(Contract):
    """`engine.json`: how the graph is run. Every number of the engine was made with exactly this."""

    target: Literal["openvino"]
    precision: Precision
    arithmetic: Literal["f32", "bf16"]
    """What layers without Q/DQ nodes compute in."""
    classes: int
    embedding_size: int


@dataclass(frozen=True)
class Engine:
    """An engine folder whose files are all what its manifest says."""

    path: Path
    manifest: Manifest
    settings: EngineSettings

    @classmethod
    def open(cls, path: Path, *, bundle_id: str) -> Self:
        """Raises ManifestError: a changed file, or an engine of another bundle."""
        manifest = Manifest.open(path, kind="engine")
        if manifest.bundle != bundle_id:
            raise ManifestError(
                f"{path}: this engine was compiled from bundle {str(manifest.bundle)[:12]}, and the bundle given is "
                f"{bundle_id:.12}; compile it again from that bundle"
            )
        return cls(path=path, manifest=manifest, settings=EngineSettings.read(path / "engine.json"))

    @property
    def verdict(self) -> str:
        """The accuracy gate's word on this engine: `pass`, `fail`, `too few images to tell`, or `reference`."""
        return str(self.manifest.measured.get("gate", {}).get("verdict", "not gated"))
