"""`Engine`: one compiled form of a bundle's network for one target and precision, with its gate evidence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from slipway.contract.base import Contract
from slipway.contract.bundle import Bundle
from slipway.contract.decision import Decision
from slipway.contract.manifest import Manifest, Sha256
from slipway.contract.spec import Precision
from slipway.errors import ManifestError
from slipway.system.files import sha256_file

Target = Literal["openvino", "tensorrt", "tensorrt_rtx"]
LANES: dict[Target, Literal["cpu", "gpu"] | None] = {"openvino": "cpu", "tensorrt": "gpu", "tensorrt_rtx": None}
"""Where an engine may be served; TensorRT-RTX proves that a graph compiles, and is never served."""


class PlanSettings(Contract):
    """What a TensorRT plan is tied to, and the flags that it was built with."""

    version: str = Field(pattern=r"^\d+([.]\d+)+$")
    """Of TensorRT, or of TensorRT-RTX."""
    compute_capability: str | None = Field(default=None, pattern=r"^\d+[.]\d+$")
    """Of the GPU it was built on, such as `9.0`; None for TensorRT-RTX, which compiles without one."""
    batch_sizes: tuple[int, int, int]
    """Least, optimal and largest of the optimisation profile."""
    optimization_level: int
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"]
    version_compatible: bool


class EngineSettings(Contract):
    """`engine.json`: what was compiled, how, and how it is run. Every number of the engine was made with this."""

    target: Target
    precision: Precision
    arithmetic: Literal["f32", "bf16", "typed"]
    """What OpenVINO computes in where there are no Q/DQ nodes; `typed`: a strongly typed plan, as its graph says."""
    decoder: Literal["cpu", "mixed"] = "cpu"
    """DALI's implementation that the numbers were made with."""
    classes: int
    embedding_size: int
    """0 where the network has no embedding."""
    graph_sha256: Sha256
    """Of the ONNX file that was compiled."""
    calibration_sha256: Sha256
    """Of the bundle's `calibration.json`."""
    plan: PlanSettings | None = None


def plan_name(compute_capability: str | None) -> str:
    """The plan's file: `model_sm90.plan` for compute capability 9.0; `model.plan` where no GPU was at hand."""
    return "model.plan" if compute_capability is None else f"model_sm{compute_capability.replace('.', '')}.plan"


def engine_name(target: Target, precision: Precision, compute_capability: str | None = None) -> str:
    """`openvino-int8`, `tensorrt-int8-sm90`, `tensorrt_rtx-int8`."""
    suffix = "" if compute_capability is None else f"-sm{compute_capability.replace('.', '')}"
    return f"{target}-{precision}{suffix}"


@dataclass(frozen=True)
class Engine:
    """An engine folder whose files are all what its manifest says, of the bundle that it is opened with."""

    path: Path
    manifest: Manifest
    settings: EngineSettings
    decision: Decision
    """Fitted to this engine's own outputs on the validation split."""

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a changed file, or a link of the chain bundle, calibration, graph that is broken."""
        manifest = Manifest.open(path, kind="engine")
        if manifest.bundle != bundle.id:
            raise ManifestError(
                f"{path}: this engine was compiled from bundle {str(manifest.bundle)[:12]}, and the bundle given is "
                f"{bundle.id:.12}; compile it again from that bundle"
            )
        engine = cls(
            path=path,
            manifest=manifest,
            settings=EngineSettings.read(path / "engine.json"),
            decision=Decision.read(path / "decision.json"),
        )
        calibration = sha256_file(bundle.path / "calibration.json")
        if engine.settings.calibration_sha256 != calibration:
            raise ManifestError(
                f"{path}: its graph was calibrated with another list of images "
                f"({engine.settings.calibration_sha256:.12}) than {bundle.path / 'calibration.json'} "
                f"({calibration:.12}); quantise and compile again"
            )
        unknown, expected = engine.decision.unknown, len(bundle.labels) * engine.settings.embedding_size
        if unknown is not None and unknown.class_means is not None and unknown.class_means.size != expected:
            raise ManifestError(
                f"{path}: decision.json has class means of {unknown.class_means.size} numbers, and its labels and "
                f"embedding make {expected}; compile again"
            )
        graph = path / "model.onnx"
        if engine.settings.target == "openvino" and sha256_file(graph) != engine.settings.graph_sha256:
            raise ManifestError(f"{graph}: not the graph that engine.json names; compile again")
        return engine

    @property
    def verdict(self) -> str:
        """The accuracy gate's word: `pass`, `fail`, `too few images to tell`, `reference`, or `proof only`."""
        return str(self.manifest.measured.get("gate", {}).get("verdict", "not gated"))

    @property
    def may_be_served(self) -> bool:
        return LANES[self.settings.target] is not None and self.verdict in ("pass", "reference")
