"""`GatedEngine`: one compiled form of a network for one target and precision, with its gate evidence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slipway.contract.card import Card
from slipway.contract.evidence.gate import Gated
from slipway.contract.manifest import Manifest, Sha256
from slipway.contract.preprocess import Decoder
from slipway.contract.spec import Precision
from slipway.contract.typed_file import Contract
from slipway.errors import ManifestError
from slipway.system.files import sha256_file

Target = Literal["openvino", "tensorrt", "tensorrt_rtx", "onnxruntime"]
LANES: dict[Target, Literal["cpu", "gpu"] | None] = {
    "openvino": "cpu",
    "tensorrt": "gpu",
    "tensorrt_rtx": None,
    "onnxruntime": "gpu",
}
"""Lane that may serve each target. TensorRT-RTX only proves that a graph compiles, and is never served. ONNX Runtime
stands in for a TensorRT plan, where `serving.gpu.fallback` says so."""
INPUT = "pixels_nhwc_u8"
"""The input of an engine that can be served: UINT8 `[n, H, W, 3]`, as the step before it hands them over."""
HEAD_INPUT = "embedding_nd"
"""The input of a head's engine: FP32 `[n, d]`, as its base's step hands it over."""
RUNTIMES: tuple[Target, ...] = ("openvino", "onnxruntime")
"""Targets that run the graph itself: their engine folders hold `model.onnx`, the others a plan."""


class PlanSettings(Contract):
    """The TensorRT version and GPU that a plan is tied to, and its build flags."""

    version: str = Field(pattern=r"^\d+([.]\d+)+$")
    """Version of TensorRT or TensorRT-RTX."""
    compute_capability: str | None = Field(default=None, pattern=r"^\d+[.]\d+$")
    """Compute capability of the build GPU, such as `9.0`; None for TensorRT-RTX, which needs no GPU."""
    batch_sizes: tuple[int, int, int]
    """Least, optimal and greatest batch size of the first optimisation profile, which takes every batch."""
    single_image_profile: bool = False
    """Whether there is a second optimisation profile, tuned for single images alone."""
    optimization_level: int
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"]
    version_compatible: bool
    card: Card | None = None
    """The GPU that timed the plan's kernels and ran its evaluation; None for TensorRT-RTX."""
    release: str | None = None
    """NVIDIA's release of the image that compiled the plan, such as `26.10`; None outside of these images."""
    dali: str | None = None
    """Version of DALI that preprocessed the images of the evaluation."""
    nvimgcodec: str | None = None
    """Version of nvImageCodec, DALI's decoder, in the evaluation."""


class EngineSettings(Contract):
    """`engine.json`: the compiled graph, the way it was compiled, and the way it runs. All the engine's figures were
    measured with these settings."""

    target: Target
    precision: Precision
    arithmetic: Literal["f32", "bf16", "typed"]
    """OpenVINO's arithmetic outside Q/DQ nodes; `typed` for a strongly typed plan and for ONNX Runtime, which follow
    their graph."""
    decoder: Decoder = "cpu"
    """Where images were decoded when the engine was evaluated."""
    classes: int = Field(ge=0)
    embedding_size: int = Field(ge=0)
    """Length of the embedding; 0 if the network has none."""
    input: str = "pixels_nchw"
    """Name of the graph's input. Older engines, which do not record it, took normalised pixels."""
    graph_sha256: Sha256
    """sha256 of the compiled ONNX file, which normalises and then computes the bundle's or the typed graph; of a head,
    of its `head.npz`."""
    calibration_sha256: Sha256 | None
    """sha256 of the bundle's `calibration.json`; None for a head, which has no ranges to calibrate."""
    base_engine_sha256: Sha256 | None = None
    """sha256 of the manifest of the base's engine to whose embeddings a head was fitted; None for any other
    classifier."""
    plan: PlanSettings | None = None
    provider: str | None = None
    """Execution provider of ONNX Runtime in the evaluation, such as `CPUExecutionProvider`. A head's form for a plan
    has one if the typed graph stood in for the plan, since its GPU was not there."""

    @property
    def name(self) -> str:
        """Name of the engine's folder."""
        return engine_name(self.target, self.precision, self.plan.compute_capability if self.plan else None)

    def plain(self) -> dict[str, Any]:
        """The content of `engine.json`, in which only ONNX Runtime has a provider, and only a head a base's engine."""
        optional = ("provider", "base_engine_sha256")
        return {name: value for name, value in super().plain().items() if name not in optional or value is not None}


def plan_name(compute_capability: str | None) -> str:
    """File name of a plan: `model_sm90.plan` for compute capability 9.0, `model.plan` without a GPU."""
    return "model.plan" if compute_capability is None else f"model_sm{compute_capability.replace('.', '')}.plan"


def engine_name(target: Target, precision: Precision, compute_capability: str | None = None) -> str:
    """Folder name of an engine: `openvino-int8`, `tensorrt-int8-sm90`, `tensorrt_rtx-int8`, `onnxruntime-fp16`."""
    suffix = "" if compute_capability is None else f"-sm{compute_capability.replace('.', '')}"
    return f"{target}-{precision}{suffix}"


def check_calibration_list(engine: Path, settings: EngineSettings, owner: Path) -> None:
    """Raises ManifestError: the graph was calibrated with another list of images than that of its bundle or base."""
    calibration = sha256_file(owner / "calibration.json")
    if settings.calibration_sha256 != calibration:
        raise ManifestError(
            f"{engine}: its graph was calibrated with another list of images ({settings.calibration_sha256!s:.12}) "
            f"than {owner / 'calibration.json'} ({calibration:.12}); quantise and compile again"
        )


def check_graph(engine: Path, settings: EngineSettings, file: str) -> None:
    """Raises ManifestError: the graph or head is not the one that `engine.json` names."""
    if (settings.target in RUNTIMES or file != "model.onnx") and sha256_file(engine / file) != settings.graph_sha256:
        raise ManifestError(f"{engine / file}: not the graph that engine.json names; compile again")


@dataclass(frozen=True)
class GatedEngine:
    """An engine folder that matches its manifest, with the verdict of its gate."""

    path: Path
    manifest: Manifest
    settings: EngineSettings

    @property
    def verdict(self) -> str:
        """Verdict of the gate: `pass`, `fail`, `too few images to tell`, `reference`, or `proof only`."""
        return self.manifest.read_measured(Gated).gate.verdict

    @property
    def may_be_served(self) -> bool:
        return LANES[self.settings.target] is not None and self.verdict in ("pass", "reference")
