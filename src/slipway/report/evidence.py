"""What the report reads of other stages' JSON: typed, and blind to the keys that it does not show."""

import json
from typing import Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from slipway.contract.base import Contract
from slipway.evaluation.headline import headline

PASS, FAIL, TOO_FEW = "pass", "fail", "too few images to tell"


class Evidence(Contract):
    """A file of another stage, of which the report shows a part."""

    model_config = ConfigDict(extra="ignore")


class Comparison(Evidence):
    """Right answers lost against FP32 on the same images, in percentage points, with the exact interval."""

    images: int
    lost: int
    gained: int
    loss_points: float
    loss_low_points: float
    loss_high_points: float
    max_loss_points: float
    verdict: str


class FlipShare(Evidence):
    """Images with another answer than FP32's, in percentage points, with the exact interval."""

    images: int
    flips: int
    flip_points: float
    flip_low_points: float
    flip_high_points: float
    max_flip_points: float
    verdict: str


class Reference(Evidence):
    """Whether FP32 itself is proven to be better than chance."""

    kinds: int
    recall_points: float
    chance_points: float
    proof_points: float
    verdict: str


class Gate(Evidence):
    """The accuracy gate's result, as `evaluation.json` of an engine keeps it."""

    verdict: str
    overall: Comparison
    classes: dict[str, Comparison]
    flips: FlipShare | None = None
    """None in older builds, and so is `reference`."""
    reference: Reference | None = None
    confidence: float
    prove_classes: bool


class Flip(Evidence):
    """A test image whose label is another one than FP32's. Of many labels all are named, and the least sure one's score
    stands for them."""

    image: str
    truth: str
    fp32: str
    fp32_score: float
    label: str
    score: float

    @field_validator("truth", "fp32", "label", mode="before")
    @classmethod
    def _labels_are_named(cls, cell: str) -> str:
        labels = _listed(cell)
        return cell if labels is None else ", ".join(labels) or "none"

    @field_validator("fp32_score", "score", mode="before")
    @classmethod
    def _least_score(cls, cell: str) -> Any:
        scores = _listed(cell)
        return cell if scores is None else min(scores, default=0.0)

    @property
    def effect(self) -> str:
        """`lost`, `gained`, or `wrong` both times."""
        return "lost" if self.fp32 == self.truth else "gained" if self.label == self.truth else "wrong"


def _listed(cell: Any) -> list[Any] | None:
    """What a multi-label cell of `predictions.csv` holds; None for any other."""
    try:
        found = json.loads(cell) if isinstance(cell, str) and cell.startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) else None


class ClassFigures(Evidence):
    """One class on the test split."""

    images: int
    recall: float
    recall_interval: tuple[float, float] | None = None


class Evaluation(Evidence):
    """`evaluation.json` of an engine or a bundle."""

    images: int
    top1: float | None = None
    """Of one label an image; of many, `map` and `exact_match`."""
    map: float | None = None
    exact_match: float | None = None
    macro_f1: float
    ece: float
    unknown_rate: float | None = None
    per_class: dict[str, ClassFigures]
    gate: Gate | None = None
    flips: tuple[Flip, ...] = ()

    @model_validator(mode="after")
    def _something_is_right(self) -> Self:
        if self.top1 is None and (self.map is None or self.exact_match is None):
            raise ValueError("neither top1 nor map and exact_match")
        return self

    @property
    def headline(self) -> str:
        return headline(self.model_dump(exclude_none=True))


class BatchLatency(Evidence):
    """One call of the network, on random pixels."""

    p50_ms: float
    p90_ms: float


class GraphFigures(Evidence):
    """What `graphs/<precision>/manifest.json` measured, copied into each engine that was compiled from it."""

    layers: int | None = None
    int8_layers: int = 0
    fp16_layers: int = 0
    not_quantised: dict[str, str] = Field(default_factory=dict)
    """Layer to the reason why it is not INT8."""
    nodes_kept_fp32: tuple[str, ...] = ()
    calibration_images: int | None = None
    calibration_method: str | None = None
    opset: int | None = None


class Measured(Evidence):
    """What the manifest of an engine measured."""

    latency: dict[int, BatchLatency] = Field(default_factory=dict)
    """By batch size."""
    plan_bytes: int | None = None
    build_s: float | None = None
    warnings: int | None = None
    """Of the compiler."""
    layer_precisions: dict[str, int] = Field(default_factory=dict)
    """Layers of the plan that compute in each precision."""
    layers_unknown: str = ""
    """Why a plan was not read back."""
    graph: GraphFigures = GraphFigures()


class Validation(Evidence):
    """What a graph loses against FP32 on the validation split."""

    images: int
    lost: int
    gained: int
    loss_points: float
    flips: int | None = None
    """None in older builds."""
    verdict: str


class Step(Evidence):
    """One graph of the search for sensitive layers."""

    kept_fp16: tuple[str, ...]
    int8_layers: int
    validation: Validation
    accepted: bool


class Sensitivity(Evidence):
    """How far one layer's quantisation alone moves the logits."""

    layer: str
    op: str
    error: float


class Search(Evidence):
    """`search.json` of the INT8 graph."""

    max_loss_points: float
    max_steps: int
    steps: tuple[Step, ...]
    ranking: tuple[Sensitivity, ...] = ()
    ranking_images: int = 0
