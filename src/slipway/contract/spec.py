"""`Spec`: the one YAML that a user writes per classifier."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.compute import Compute
from slipway.contract.decision import Probability, Score, Task
from slipway.contract.preprocess import Preprocess
from slipway.contract.recipe import AUTO, Recipe, Seed
from slipway.contract.tracking import Tracking
from slipway.system.files import sha256_bytes

PathText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
FLIP_POINTS = 5.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_STEP_PREFIXES = ("preprocess_", "guard_", "decode_", "engine_", "post_", "answer_", "fused_")


def check_name(name: str) -> str:
    """A classifier's name becomes a Triton model, a folder and a metric label: keep it to `[a-z][a-z0-9_]*`."""
    if not _NAME.fullmatch(name):
        raise ValueError("use 1 to 63 of a-z, 0-9 and _, beginning with a letter")
    if name.endswith("_full") or name.startswith(_STEP_PREFIXES):
        raise ValueError(f"names ending in _full or beginning with {', '.join(_STEP_PREFIXES)} belong to Slipway")
    return name


class Data(Contract):
    """Where the images are, and how they are split."""

    root: PathText
    """A folder with one sub-folder of images per class, or with `train`, `validation` and `test`, each of which has
    these; with `csv`, the folder that its paths start from. Relative to where the command is run."""
    csv: PathText | None = None
    """A table with the columns `path` and `label`, or `labels` for multi-label, and `split` where splits are given.
    UTF-8, commas, one row an image; relative to where the command is run."""
    label_separator: str = Field(default="|", min_length=1)
    """Between the labels of one cell of the column `labels`; an empty cell is an image with none of them."""
    group_column: str | None = None
    """The column of `csv` that says what must stay in one split: a patient, a camera, a product."""
    validation_fraction: float = Field(default=0.15, ge=0.05, le=0.5)
    """Of the images; not used where splits are given, and so are `test_fraction` and `seed`."""
    test_fraction: float = Field(default=0.15, ge=0.05, le=0.5)
    seed: Seed = 0

    @model_validator(mode="after")
    def _groups_are_a_column_of_a_table(self) -> Self:
        if self.group_column is not None and self.csv is None:
            raise ValueError("group_column is a column of a CSV file; give data.csv too, or leave it out")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction > 0.8:
            raise ValueError("validation_fraction + test_fraction must leave at least 0.2 for training")
        return self


class Backbone(Contract):
    """A timm model; for an imported ONNX file, a name for it. `backbone: auto` is short for `{name: auto}`."""

    name: str = Field(min_length=1)
    """`auto`: chosen by the number of images (docs/recipe.md); the checkpoint's spec has the name."""
    pretrained: bool = True
    """True loads timm's weights, and fails where they cannot be had; False starts from a seeded random state."""
    weights: PathText | None = None
    """A safetensors file of this backbone in the place of timm's weights, `model.safetensors` of a checkpoint too.
    Relative to where the command is run."""

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_name(cls, data: Any) -> Any:
        return {"name": AUTO} if data == AUTO else data

    @model_validator(mode="after")
    def _weights_are_pretrained(self) -> Self:
        if self.weights is not None and not self.pretrained:
            raise ValueError("pretrained: false starts from a random state, and weights are given; leave out one")
        if self.weights is not None and self.name == AUTO:
            raise ValueError("weights are those of one timm model; write its name in the place of auto")
        return self


class UnknownPolicy(Contract):
    """What `unknown` is to keep: coverage or precision. Training finds the threshold on the validation split."""

    score: Literal["auto"] | Score = "auto"
    """What is compared with the threshold; `auto` takes what tells known from unknown best on the validation split."""
    coverage: float | None = Field(default=None, ge=0.5, lt=1.0)
    """The share of images of the known classes that are to be answered."""
    precision: float | None = Field(default=None, ge=0.5, lt=1.0)
    """The share of the answers that are to be right."""

    @model_validator(mode="after")
    def _one_promise(self) -> Self:
        if (self.coverage is None) == (self.precision is None):
            raise ValueError(
                "give one of coverage (the share that is answered) and precision (the share that is right)"
            )
        return self


class ThresholdPolicy(Contract):
    """What each label's threshold is to reach on the validation split. The default is the highest F1."""

    precision: float | None = Field(default=None, gt=0.0, le=1.0)
    """The lowest threshold from which at least this share of the given labels is right."""
    recall: float | None = Field(default=None, gt=0.0, le=1.0)
    """The highest threshold that gives the label to at least this share of the images that have it."""
    fixed: Probability | None = None
    """The same number for every label, whatever that gives."""

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if len([aim for aim in (self.precision, self.recall, self.fixed) if aim is not None]) > 1:
            raise ValueError("give one of precision, recall and fixed, or none of them for the highest F1")
        return self


class DecisionPolicy(Contract):
    """What the user decides about answers; training fits the rest (temperature, threshold) and writes a `Decision`."""

    top_k: int = Field(default=5, ge=1, le=1000)
    unknown: UnknownPolicy | None = None
    """Multi-class only."""
    unknown_threshold: Probability | None = None
    """In the place of `unknown`: an answer whose best probability lies under this is `unknown`, whatever that costs."""
    thresholds: ThresholdPolicy | None = None
    """Multi-label only; left out: the highest F1 of each label."""

    @model_validator(mode="after")
    def _one_unknown(self) -> Self:
        if self.unknown is not None and self.unknown_threshold is not None:
            raise ValueError("unknown and unknown_threshold contradict each other; give one of them")
        return self


class Calibration(Contract):
    """The images that set the INT8 ranges: a seeded, stratified sample of the training split."""

    images: int = Field(default=500, ge=1)
    seed: Seed = 0
    method: Literal["entropy", "max"] = "entropy"


class SensitiveLayers(Contract):
    """The search that keeps layers in FP16 when plain INT8 loses too much on the validation split."""

    max_steps: int = Field(default=6, ge=0, le=64)
    """Graphs that are tried after plain INT8; each keeps twice as many layers in FP16 as the one before. 0: none."""
    images: int = Field(default=64, ge=1)
    """Calibration images on which each layer's share of the output error is measured."""


class AccuracyGate(Contract):
    """What a precision may lose against FP32 on the test split, in percentage points."""

    max_loss_points: float = Field(default=0.5, gt=0.0, le=100.0)
    """Of top-1 accuracy."""
    max_class_loss_points: float = Field(default=2.0, gt=0.0, le=100.0)
    """Of any class's recall."""
    prove_classes: bool = True
    """True: a class with too few test images to prove its limit stops the build. False: it passes while what was
    measured is within the limit. Proving 2 points takes about 300 images a class."""
    max_flip_points: float | None = Field(default=None, gt=0.0, le=100.0)
    """Of images that may be answered otherwise than by FP32, right or wrong. Left out: 5, or max_loss_points where that
    is more, since every image that is lost has flipped."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0)

    @property
    def flip_limit_points(self) -> float:
        """The limit on flips that holds, in percentage points."""
        return max(FLIP_POINTS, self.max_loss_points) if self.max_flip_points is None else self.max_flip_points


class TensorRT(Contract):
    """How plans of the gpu lane are built. Every flag is recorded with the plan."""

    optimization_level: int = Field(default=3, ge=0, le=5)
    """TensorRT's `builder_optimization_level`."""
    optimal_batch_size: int | None = Field(default=None, ge=1)
    """The batch that kernels are chosen for; serving.max_batch_size where left out."""
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = "none"
    """A plan for more GPUs than the one it was built on, at some cost in speed."""
    version_compatible: bool = False
    """A plan that later TensorRT versions of the same major one load, at some cost in speed."""


class LatencyGate(Contract):
    """The latency budget: P99 of requests that arrive at random at the given mean rate."""

    p99_ms: float = Field(default=50.0, gt=0.0)
    rate_per_s: float = Field(default=20.0, gt=0.0)


class Serving(Contract):
    """How the steps run in Triton."""

    layout: Literal["steps", "shared_decode", "fused"] = "steps"
    """Of the cpu lane: what is a model, and so a process, of its own. `steps`: preprocess, engine and answer.
    `shared_decode`: preprocess, which other classifiers share, and the rest. `fused`: all in one. The gpu lane has
    steps whatever is said here."""
    max_batch_size: int = Field(default=8, ge=1, le=128)
    preferred_batch_size: int = Field(default=0, ge=0, le=128)
    """Waiting requests of different clients are merged up to so many images; a request of more is run by itself. Small
    batches keep the tail short on a CPU, where a larger one takes longer. 0: up to max_batch_size."""
    instances: int = Field(default=2, ge=1, le=64)
    """Processes of every step but `post`; two of one thread beat one of two on two cores."""
    threads: int = Field(default=1, ge=1, le=64)
    """Threads of each instance."""
    pinned: bool = False
    """Of the cpu lane: each instance keeps to as many cores as it has threads, the next instance to the next ones.
    For a classifier that has the machine to itself; where many share it, one core may get too many of them."""
    max_queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    """How long the first step may hold a request back to fill a batch; 2 ms did not help where it was tried."""
    max_queue_size: int = Field(default=0, ge=0, le=10_000)
    """Requests that may wait at the first step; the next one is refused at once. 0: as many as come."""
    queue_timeout_ms: int = Field(default=0, ge=0, le=60_000)
    """A request that waited longer at the first step is refused instead of answered late. 0: it waits."""
    warmup_batches: int = Field(default=2, ge=0, le=100)
    """Batches of one image and of the largest size that each instance runs before it says that it is ready."""


def _distinct(precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
    if len(set(precisions)) != len(precisions):
        raise ValueError("name each precision once")
    return precisions


AFTER_TRAINING = (
    "tracking",
    "decision",
    "calibration",
    "sensitive_layers",
    "precisions",
    "accuracy",
    "tensorrt",
    "latency",
    "serving",
)
"""The fields of a spec that no weight depends on."""


class Spec(Contract):
    """One classifier, from its data to its latency budget."""

    name: Annotated[str, AfterValidator(check_name)]
    task: Task = "multiclass"
    data: Data
    preprocess: Preprocess
    backbone: Backbone
    recipe: Recipe = Recipe()
    compute: Compute = Compute()
    tracking: Tracking = Tracking()
    decision: DecisionPolicy = DecisionPolicy()
    calibration: Calibration = Calibration()
    sensitive_layers: SensitiveLayers = SensitiveLayers()
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), AfterValidator(_distinct)] = ("int8",)
    """What may be served. The cpu lane takes the fastest measured one of int8, bf16 and fp32 that are listed and
    pass the gate; the gpu lane takes the first of int8, fp16 and fp32 that is listed and passes. FP32 is always
    built, as the reference."""
    accuracy: AccuracyGate = AccuracyGate()
    tensorrt: TensorRT = TensorRT()
    latency: LatencyGate = LatencyGate()
    serving: Serving = Serving()

    @property
    def training_sha256(self) -> str:
        """The hash of every field that the weights depend on."""
        trained = {name: value for name, value in self.plain().items() if name not in AFTER_TRAINING}
        return sha256_bytes(json.dumps(trained, sort_keys=True).encode())

    @model_validator(mode="after")
    def _unknown_belongs_to_multiclass(self) -> Self:
        if self.task == "multilabel" and self.decision.unknown is not None:
            raise ValueError("decision.unknown belongs to multiclass; a multilabel answer without labels is empty")
        return self

    @model_validator(mode="after")
    def _only_what_was_learned_is_frozen(self) -> Self:
        if not self.backbone.pretrained and (self.recipe.freeze_epochs or self.recipe.unfreeze_epochs):
            raise ValueError(
                "recipe.freeze_epochs and unfreeze_epochs keep what a backbone has learned, and backbone.pretrained: "
                "false has learned nothing; give weights, or leave them 0"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_belong_to_multilabel(self) -> Self:
        if self.task == "multiclass" and self.decision.thresholds is not None:
            raise ValueError("decision.thresholds belongs to multilabel; for multiclass use decision.unknown")
        if self.task == "multilabel" and self.decision.unknown_threshold is not None:
            raise ValueError("decision.unknown_threshold belongs to multiclass; for multilabel use decision.thresholds")
        return self

    @model_validator(mode="after")
    def _the_loss_fits_the_task(self) -> Self:
        self.recipe.loss.check(task=self.task, balance=self.recipe.balance)
        return self

    @model_validator(mode="after")
    def _the_optimal_batch_is_served(self) -> Self:
        optimal, largest = self.tensorrt.optimal_batch_size, self.serving.max_batch_size
        if optimal is not None and optimal > largest:
            raise ValueError(f"tensorrt.optimal_batch_size {optimal} is over serving.max_batch_size {largest}")
        return self
