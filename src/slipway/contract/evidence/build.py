"""The `measured` part of the manifests of checkpoint, bundle, graph and engine, and the search for layers."""

from typing import Literal

from pydantic import Field

from slipway.contract.card import Card
from slipway.contract.decision import Score
from slipway.contract.evidence.evaluation import Interval, PrimaryMetrics
from slipway.contract.evidence.gate import AccuracyResult, AccuracyVerdict, Ungated
from slipway.contract.spec import Precision
from slipway.contract.typed_file import Contract, Evidence

SEARCH = "search.json"
FAILED_SUFFIX = "-search.json"
"""Suffix of the file that a failed search leaves beside the graph folder: `graphs/int8-search.json`."""


class CheckpointMeasured(Evidence):
    """Measurements of training."""

    images: dict[str, int]
    """Number of images in each split."""
    minority: tuple[str, ...] = ()
    """Labels whose images `recipe.augment.minority` changed."""
    epochs: int
    best_epoch: int
    best_validation_loss: float
    best_validation_macro_f1: float
    phase: str
    weights: str
    """Origin of the weights that training started from."""
    chosen: tuple[str, ...]
    """Values that `auto` chose, and why."""
    resumed: bool
    train_s: float


class NetworkOrigin(Evidence):
    """Origin of a bundle's network; an ONNX import records what it took and changed."""

    origin: str
    opset: int | None = None
    tensors: dict[str, str] = Field(default_factory=dict)
    """Name in the imported file of each of our tensors."""
    changes: tuple[str, ...] = ()


class UnknownShare(Evidence):
    """Share of answers that are `unknown`."""

    score: Score
    unknown_rate: float
    """Share of test images answered `unknown`."""


class HeadFit(Evidence):
    """Evidence on the fit of a head's weights."""

    strength: float
    """scikit-learn's `C`, or `1 / alpha` of an MLP: the lower, the smaller the weights stay."""
    folds: int
    """Parts of the train split in the cross-validation that chose the strength; 0 if there was none."""
    images: int
    """Images in it."""
    log_loss: dict[str, float] = Field(default_factory=dict)
    """Mean log-loss of the left-out images, by strength."""


class BundleMeasured(NetworkOrigin, PrimaryMetrics):
    """Measurements of export, import or the fit of a head."""

    temperature: float
    embedding_size: int
    """Length of the embedding; 0 if the network has none."""
    classes_without_images: int
    max_logit_difference: float | None = None
    """Largest difference between ONNX and torch logits on the test split; None for an imported ONNX file."""
    map_interval: Interval | None = None
    ece_interval: Interval
    ece_uncalibrated: float
    unknown: UnknownShare | None = None
    head: HeadFit | None = None
    """Evidence on the fit of a head; None for any other classifier."""


class Validation(Evidence):
    """Loss of a graph against FP32 on the validation split."""

    images: int
    lost: int
    gained: int
    loss_points: float
    flips: int
    """Images answered differently from FP32, right or wrong."""
    verdict: AccuracyVerdict
    """Verdict of the accuracy gate on these images."""


class Step(Contract):
    """One graph that the search tried."""

    kept_fp16: tuple[str, ...]
    """Nodes without their Q/DQ nodes, most sensitive first; empty for plain INT8."""
    int8_layers: int
    """Number of convolutions and matrix products that are still INT8."""
    validation: Validation
    accepted: bool


class Sensitivity(Contract):
    """Effect on the logits of quantising one node alone."""

    layer: str
    op: str
    error: float
    """Squared distance to the logits without any Q/DQ, relative to their variation over the images."""


class SensitivitySearch(Contract):
    """`search.json`: every step from plain INT8 to the accepted graph, and the ranking it followed."""

    max_loss_points: float
    max_steps: int
    steps: tuple[Step, ...]
    ranking: tuple[Sensitivity, ...] = ()
    """Nodes by sensitivity, most sensitive first; empty if plain INT8 was accepted."""
    ranking_images: int = 0


class AcceptedStep(Validation):
    """The last step of the search."""

    steps: int
    """Number of steps tried."""
    kept_fp16: tuple[str, ...]


class Autotuned(Evidence):
    """The search of ModelOpt's autotune, by trtexec's median times of a batch."""

    card: Card
    """The GPU that was timed."""
    batch_size: int
    plans: int
    """Number of plans that were built and timed."""
    with_ms: float | None
    """Time of the graph with its Q/DQ nodes, in ms, before a search took any of them away; None if no log tells it."""
    without_ms: float | None
    """Time of the same graph in FP16 without them, in ms; None if no log tells it."""
    version: str | None
    """The TensorRT that timed it, in trtexec's words, such as `TensorRT v110100`; None if no log tells it."""


class GraphMeasured(Evidence):
    """Measurements of quantisation, copied into each engine compiled from the graph; empty for the bundle's graph."""

    precision: Precision | None = None
    opset: int | None = None
    layers: int | None = None
    """Number of convolutions and matrix products; None if they were not counted."""
    int8_layers: int = 0
    fp8_layers: int = 0
    fp16_layers: int = 0
    nodes_kept_fp32: tuple[str, ...] = ()
    not_quantised: dict[str, str] = Field(default_factory=dict)
    """Reason why each remaining layer is not INT8, or not FP8 in a graph of that precision."""
    calibration_images: int | None = None
    calibration_method: str | None = None
    search: AcceptedStep | None = None
    autotune: Autotuned | None = None
    """The placement of Q/DQ nodes by measured times; None where the times were not measured."""

    @property
    def by_precision(self) -> dict[str, int]:
        """Number of layers that compute in each precision; empty if they were not counted."""
        counts = {"INT8": self.int8_layers, "FP8": self.fp8_layers, "FP16": self.fp16_layers}
        return {} if self.layers is None else {**counts, "FP32": self.layers - sum(counts.values())}


class BatchLatency(Evidence):
    """Time of one network call on random pixels."""

    p50_ms: float
    p90_ms: float


class PlanMeasured(Evidence):
    """Measurements of compiling a TensorRT plan; empty for other engines."""

    plan_bytes: int | None = None
    build_s: float | None = None
    warnings: int | None = None
    """Number of compiler warnings."""
    layer_precisions: dict[str, int] = Field(default_factory=dict)
    """Number of the plan's layers that compute in each precision."""
    layers_unknown: str = ""
    """Reason why the plan was not read back; empty if it was."""


class EngineMeasured(PlanMeasured):
    """Measurements of compiling and evaluating an engine. A proof has no test-split figures."""

    images: int | None = None
    top1: float | None = None
    map: float | None = None
    exact_match: float | None = None
    macro_f1: float | None = None
    ece: float | None = None
    unknown_rate: float | None = None
    temperature: float | None = None
    gate: AccuracyResult | Ungated
    latency: dict[int, BatchLatency] = Field(default_factory=dict)
    """Latency at each batch size."""
    graph: GraphMeasured = GraphMeasured()
    carried_over: PrimaryMetrics | None = None
    """Results of a head on the test split if FP32's head and decision took this engine's embeddings, instead of those
    fitted to them."""


class EmbeddingLoss(Evidence):
    """Distance of an engine's embeddings from FP32's, on images that the calibration did not see."""

    verdict: Literal["pass", "fail"]
    images: int
    mean_cosine: float
    """Mean cosine of the two embeddings of an image."""
    low_cosine: float
    """1st percentile of the cosine."""
    same_neighbour: float
    """Share of images whose nearest neighbour among the others, by cosine, is the same one."""
    min_cosine: float
    """Lowest mean cosine that is allowed."""
    profile: Literal["batches", "single images"] | None = None
    """Optimisation profile of a plan that these figures are of: the worse one, if the plan has two."""

    def __str__(self) -> str:
        run = f" ({self.profile})" if self.profile else ""
        return (
            f"{self.verdict}{run}; cosine to FP32 {self.mean_cosine:.4f} on average ({self.min_cosine:g} asked), "
            f"{self.low_cosine:.4f} at the 1st percentile of {self.images} images; "
            f"{self.same_neighbour:.1%} keep their nearest neighbour"
        )


class BaseMeasured(Evidence):
    """Measurements of making a base."""

    origin: str
    """Origin of the weights."""
    embedding_size: int
    max_embedding_difference: float
    """Largest difference between the embeddings of ONNX and torch, on the images that judge the engines."""


class BaseEngineMeasured(PlanMeasured):
    """Measurements of compiling an engine of a base."""

    gate: EmbeddingLoss | Ungated
    latency: dict[int, BatchLatency] = Field(default_factory=dict)
    """Latency at each batch size."""
    graph: GraphMeasured = GraphMeasured()
