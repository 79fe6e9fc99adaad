"""What the manifests of checkpoint, bundle, graph and engine record as `measured`, and the search for layers."""

from pydantic import Field

from slipway.contract.base import Contract, Evidence
from slipway.contract.decision import Score
from slipway.contract.evidence.evaluation import Interval, PrimaryMetrics
from slipway.contract.evidence.gate import GateResult, Ungated, Verdict
from slipway.contract.spec import Precision

SEARCH = "search.json"
FAILED_SUFFIX = "-search.json"
"""The end of the name of the file that a failed search leaves beside the graph folder: `graphs/int8-search.json`."""


class CheckpointMeasured(Evidence):
    """What training measured."""

    images: dict[str, int]
    """By split."""
    minority: tuple[str, ...] = ()
    """The labels whose images `recipe.augment.minority` changed."""
    epochs: int
    best_epoch: int
    best_validation_loss: float
    best_validation_macro_f1: float
    phase: str
    weights: str
    """Where the weights came from that training began with."""
    chosen: tuple[str, ...]
    """What `auto` chose, and why."""
    resumed: bool
    train_s: float


class NetworkOrigin(Evidence):
    """Where the network of a bundle comes from; an import of ONNX says what it took and changed."""

    origin: str
    opset: int | None = None
    tensors: dict[str, str] = Field(default_factory=dict)
    """Our name of a tensor to the file's."""
    changes: tuple[str, ...] = ()


class UnknownShare(Evidence):
    score: Score
    unknown_rate: float
    """On the test split."""


class BundleMeasured(NetworkOrigin, PrimaryMetrics):
    """What export or import measured."""

    temperature: float
    embedding_size: int
    """0 where the network has no embedding."""
    classes_without_images: int
    max_logit_difference: float | None = None
    """Between ONNX and torch, on the test split; None for an ONNX file that was imported."""
    map_interval: Interval | None = None
    ece_interval: Interval
    ece_uncalibrated: float
    unknown: UnknownShare | None = None


class Validation(Evidence):
    """What a graph loses against FP32 on the validation split."""

    images: int
    lost: int
    gained: int
    loss_points: float
    flips: int
    """Images that are answered otherwise than by FP32, right or wrong."""
    verdict: Verdict
    """The accuracy gate's, on these images."""


class Step(Contract):
    """One graph that was tried."""

    kept_fp16: tuple[str, ...]
    """Nodes whose Q/DQ were taken away, the most sensitive first; none in plain INT8."""
    int8_layers: int
    """Convolutions and matrix products that are still INT8."""
    validation: Validation
    accepted: bool


class Sensitivity(Contract):
    """How far one node's quantisation alone moves the logits."""

    layer: str
    op: str
    error: float
    """Squared distance to the logits without any Q/DQ, relative to how far those vary over the images."""


class Search(Contract):
    """`search.json`: every step from plain INT8 to the graph that was accepted, and the ranking it went by."""

    max_loss_points: float
    max_steps: int
    steps: tuple[Step, ...]
    ranking: tuple[Sensitivity, ...] = ()
    """The most sensitive first; empty where plain INT8 was accepted."""
    ranking_images: int = 0


class AcceptedStep(Validation):
    """The step that the search ended with."""

    steps: int
    """How many were tried."""
    kept_fp16: tuple[str, ...]


class GraphMeasured(Evidence):
    """What quantisation measured, copied into each engine that is compiled from the graph; empty for the bundle's own
    graph."""

    precision: Precision | None = None
    opset: int | None = None
    layers: int | None = None
    """Convolutions and matrix products; None where they were not counted."""
    int8_layers: int = 0
    fp16_layers: int = 0
    nodes_kept_fp32: tuple[str, ...] = ()
    not_quantised: dict[str, str] = Field(default_factory=dict)
    """Layer to the reason why it is not INT8."""
    calibration_images: int | None = None
    calibration_method: str | None = None
    search: AcceptedStep | None = None

    @property
    def by_precision(self) -> dict[str, int]:
        """Layers that compute in each precision; nothing is known of a graph whose layers were not counted."""
        counts = {"INT8": self.int8_layers, "FP16": self.fp16_layers}
        return {} if self.layers is None else {**counts, "FP32": self.layers - sum(counts.values())}


class BatchLatency(Evidence):
    """One call of the network, on random pixels."""

    p50_ms: float
    p90_ms: float


class PlanMeasured(Evidence):
    """What compiling a TensorRT plan measured; empty for other engines."""

    plan_bytes: int | None = None
    build_s: float | None = None
    warnings: int | None = None
    """How often the compiler warned."""
    layer_precisions: dict[str, int] = Field(default_factory=dict)
    """Layers of the plan that compute in each precision."""
    layers_unknown: str = ""
    """Why a plan was not read back."""


class EngineMeasured(PlanMeasured):
    """What compiling and evaluating an engine measured; the test split's figures are left out of a proof."""

    images: int | None = None
    top1: float | None = None
    map: float | None = None
    exact_match: float | None = None
    macro_f1: float | None = None
    ece: float | None = None
    unknown_rate: float | None = None
    temperature: float | None = None
    gate: GateResult | Ungated
    latency: dict[int, BatchLatency] = Field(default_factory=dict)
    """By batch size."""
    graph: GraphMeasured = GraphMeasured()
