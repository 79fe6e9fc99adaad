"""The result file of the study."""

from pydantic import ConfigDict, Field

from slipway.contract import Choice
from slipway.contract.evidence.studies import Part
from slipway.contract.typed_file import Evidence


class Cell(Evidence):
    """Figures, or the reason why there are none."""

    reason: str = ""


class Fp16(Cell):
    nodes_kept_fp32: int = 0
    nodes: int = 0


class Int8(Cell):
    int8_layers: int = 0
    layers: int = 0
    not_quantised: dict[str, str] = Field(default={})


class Plan(Cell):
    bytes: int = 0
    seconds: float = 0.0


class Likeness(Evidence):
    """Likeness of an engine's logits to FP32's."""

    cosine: float
    agreement: float
    """Share of images with the same best class."""


class Speed(Evidence):
    """Speed relative to FP32 over the rounds: the median, and the 10th and 90th percentile."""

    precision: str = ""
    median_ms: float = 0.0
    speed_to_fp32: float
    speed_low: float = 0.0
    speed_high: float = 0.0


class Row(Evidence):
    """Cells of one backbone, filled in step by step: what was made stands even if a later step fails."""

    model_config = ConfigDict(frozen=False)

    seconds: float = 0.0
    ended: str = ""
    """Error that ended the row."""


class CompiledRow(Row):
    input: int = 0
    """Input side in pixels."""
    parameters: int = 0
    gflops: float = 0.0
    calibration_images: int = 0
    fp16: Fp16 = Fp16()
    int8: Int8 = Int8()
    plan_fp32: Plan = Plan()
    plan_fp16: Plan = Plan()
    plan_int8: Plan = Plan()
    openvino: dict[str, Likeness] = Field(default={})
    speed: dict[str, Speed] = Field(default={})
    chosen: Speed | None = None
    """The fastest, measured once more by itself."""


class Validated(Part):
    loss_points: float


class Step(Part):
    kept_fp16: tuple[str, ...]
    validation: Validated


class Searched(Part):
    """The keys of `search.json` that the page shows; an older release wrote the published result."""

    steps: tuple[Step, ...]


class Overall(Part):
    lost: int
    gained: int


class Gate(Part):
    verdict: str
    overall: Overall | None = None


class EngineFound(Part):
    """The keys of an engine's measurements that the page shows."""

    top1: float
    gate: Gate
    flips: int
    """Test images answered differently from FP32."""


class TrainedRow(Row):
    model_config = ConfigDict(extra="allow")

    fp16_ended: str = ""
    int8_ended: str = ""
    search: Searched | None = None
    choice: Choice | None = None
    __pydantic_extra__: dict[str, EngineFound]


class Processor(Evidence):
    processor: str
    cores: int


class BackbonesResult(Evidence):
    """The study `backbones`. A run that is not done has no machine yet."""

    model_config = ConfigDict(frozen=False)

    created: str
    commit: str | None = None
    machine: Processor | None = None
    versions: dict[str, str] = Field(default={})
    compiled: dict[str, CompiledRow]
    trained: dict[str, TrainedRow]
