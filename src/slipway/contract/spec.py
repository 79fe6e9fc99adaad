"""`Spec`: the one YAML that a user writes per classifier."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.decision import Probability, Score, Task
from slipway.contract.preprocess import Preprocess
from slipway.contract.recipe import AUTO, Compute, Recipe, Seed, Tracking
from slipway.contract.serving import Serving
from slipway.contract.typed_file import Contract
from slipway.system.files import sha256_bytes

PathText = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
FLIP_POINTS = 5.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_STEP_PREFIXES = ("preprocess_", "guard_", "decode_", "engine_", "post_", "answer_", "fused_", "base_", "heads_")


def check_name(name: str) -> str:
    """A classifier's name becomes a Triton model, a folder and a metric label: keep it to `[a-z][a-z0-9_]*`."""
    if not _NAME.fullmatch(name):
        raise ValueError("use 1 to 63 characters of a-z, 0-9 and _, beginning with a letter")
    if name.endswith("_full") or name.startswith(_STEP_PREFIXES):
        raise ValueError(f"names ending in _full or beginning with {', '.join(_STEP_PREFIXES)} belong to Slipway")
    return name


class Data(Contract):
    """The location of the images, and their splits."""

    root: PathText
    """Folder with one sub-folder of images per class, or with `train`, `validation` and `test`, each with these
    sub-folders. With `csv`, the base folder of its paths. It is relative to the working directory."""
    csv: PathText | None = None
    """CSV file with the columns `path` and `label` (`labels` for multi-label), and optionally `split`: UTF-8,
    comma-separated, one row per image. Relative to the working directory."""
    labels: PathText | None = None
    """File with one label per line, by class id. The default order is the sorted one; a new class must come last, so
    that the ids of the others stay. Relative to the working directory."""
    label_separator: str = Field(default="|", min_length=1)
    """Separator of the labels in a cell of the column `labels`. An empty cell is an image without labels."""
    group_column: str | None = None
    """Column of `csv` whose value, such as a patient, camera or product, must stay within one split."""
    validation_fraction: float = Field(default=0.15, ge=0.05, le=0.5)
    """Share of the images used for validation. Ignored if splits are given."""
    test_fraction: float = Field(default=0.15, ge=0.05, le=0.5)
    """Share of the images used for the test. Ignored if splits are given."""
    seed: Seed = 0
    """Seed of the split. Ignored if splits are given."""

    @property
    def least_images(self) -> int:
        """Different images that each class needs, so that rounding leaves no split without the class."""
        share = min(self.validation_fraction, self.test_fraction, 1 - self.validation_fraction - self.test_fraction)
        return int(2 / share) + 1

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
    """A timm model, or a name for an imported ONNX file. `backbone: auto` is short for `{name: auto}`."""

    name: str = Field(min_length=1)
    """timm's name. `auto` chooses by the number of images (docs/recipe.md); the checkpoint's spec has the result."""
    pretrained: bool = True
    """True loads timm's weights, and fails if they are unavailable. False starts from a seeded random state."""
    weights: PathText | None = None
    """A safetensors file to use instead of timm's weights; a checkpoint's `model.safetensors` works too. Relative to
    the working directory."""

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_name(cls, data: Any) -> Any:
        return {"name": AUTO} if data == AUTO else data

    @model_validator(mode="after")
    def _weights_are_pretrained(self) -> Self:
        if self.weights is not None and not self.pretrained:
            raise ValueError("pretrained: false starts from a random state, but weights are given; leave one out")
        if self.weights is not None and self.name == AUTO:
            raise ValueError("weights belong to one timm model; write its name instead of auto")
        return self


class UnknownPolicy(Contract):
    """Target of `unknown`: coverage or precision. Training fits the threshold on the validation split."""

    score: Literal["auto"] | Score = "auto"
    """Score compared with the threshold. `auto` takes the one that best separates known from unknown in validation."""
    coverage: float | None = Field(default=None, ge=0.5, lt=1.0)
    """Share of known-class images to answer."""
    precision: float | None = Field(default=None, ge=0.5, lt=1.0)
    """Share of the answers that must be right."""

    @model_validator(mode="after")
    def _one_promise(self) -> Self:
        if (self.coverage is None) == (self.precision is None):
            raise ValueError(
                "give either coverage (the share of images to answer) or precision (the share of right answers)"
            )
        return self


class ThresholdPolicy(Contract):
    """Target of each label's threshold on the validation split. The default is the highest F1."""

    precision: float | None = Field(default=None, gt=0.0, le=1.0)
    """Precision to reach, by the lowest threshold from which this share of the given labels is right."""
    recall: float | None = Field(default=None, gt=0.0, le=1.0)
    """Recall to reach, by the highest threshold that finds this share of the images with the label."""
    fixed: Probability | None = None
    """One threshold for every label, whatever precision and recall result."""

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if len([aim for aim in (self.precision, self.recall, self.fixed) if aim is not None]) > 1:
            raise ValueError("give one of precision, recall and fixed, or none of them for the highest F1")
        return self


class DecisionPolicy(Contract):
    """The user's choices about answers. Training fits the temperature and thresholds and writes a `Decision`."""

    top_k: int = Field(default=5, ge=1, le=1000)
    """Most labels in an answer, the most probable first. A multi-label image with more is an error before training."""
    unknown: UnknownPolicy | None = None
    """Policy for answering `unknown`; multi-class only."""
    unknown_threshold: Probability | None = None
    """Instead of `unknown`: the best probability below which the answer is `unknown`, whatever the coverage."""
    thresholds: ThresholdPolicy | None = None
    """Target of the label thresholds; multi-label only. The default is each label's highest F1."""

    @model_validator(mode="after")
    def _one_unknown(self) -> Self:
        if self.unknown is not None and self.unknown_threshold is not None:
            raise ValueError("unknown and unknown_threshold contradict each other; give one of them")
        return self


class Calibration(Contract):
    """The images that set the ranges of INT8 and FP8: a seeded, stratified sample of the training split."""

    images: int = Field(default=500, ge=1)
    """Number of images to draw; an error if there are fewer."""
    seed: Seed = 0
    """Seed by which the images are drawn."""
    method: Literal["entropy", "max"] = "entropy"
    """How ranges are set: `entropy` clips large values where that loses the least information, `max` clips nothing."""


class SensitiveLayers(Contract):
    """The search that keeps layers in FP16 when plain INT8 loses too much on the validation split."""

    max_steps: int = Field(default=6, ge=0, le=64)
    """Graphs to try after plain INT8; each keeps twice as many layers in FP16 as the one before."""
    images: int = Field(default=64, ge=1)
    """Calibration images used to measure each layer's share of the output error."""


class AccuracyGate(Contract):
    """The loss against FP32 that a precision is allowed on the test split."""

    max_loss_points: float = Field(default=0.5, gt=0.0, le=100.0)
    """Accuracy loss allowed against FP32 (top-1, or all labels right), in percentage points."""
    max_class_loss_points: float = Field(default=2.0, gt=0.0, le=100.0)
    """Recall loss allowed against FP32 for any class, in percentage points."""
    prove_classes: bool = True
    """True stops the build if a class has too few test images to prove its limit. False lets such a class pass if its
    measured loss is within the limit. Proving 2 points takes about 300 images per class."""
    max_flip_points: float | None = Field(default=None, gt=0.0, le=100.0)
    """Share of images that may be answered differently from FP32, right or wrong, in percentage points. The default is
    5, or max_loss_points if that is larger, since every lost image has flipped."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0)
    """Confidence of the verdict."""

    @property
    def flip_limit_points(self) -> float:
        """The limit on flips that applies, in percentage points."""
        return max(FLIP_POINTS, self.max_loss_points) if self.max_flip_points is None else self.max_flip_points


class TensorRT(Contract):
    """Build options of the gpu lane's plans. Each is recorded with the plan."""

    optimization_level: int = Field(default=3, ge=0, le=5)
    """TensorRT's `builder_optimization_level`."""
    optimal_batch_size: int | None = Field(default=None, ge=1)
    """Batch size to choose kernels for. The default is serving.gpu.max_batch_size."""
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = "none"
    """GPUs besides the build GPU that can run the plan, at some cost in speed."""
    version_compatible: bool = False
    """True builds a plan that later TensorRT versions of the same major version can load, at some cost in speed."""


class LatencyGate(Contract):
    """The latency budget: P99 of requests that arrive at random at a given mean rate."""

    p99_ms: float = Field(default=50.0, gt=0.0)
    """Limit on P99, in ms. It is only recorded: `slipway gate --limit-ms` and a gateway's `budgets_ms` set theirs."""
    rate_per_s: float = Field(default=20.0, gt=0.0)
    """Mean requests per second with which `p99_ms` holds. It is only recorded: `slipway gate --rate` sets its own."""


def check_optimal_batch(tensorrt: TensorRT, serving: Serving) -> None:
    """Raises ValueError: no plan serves the batch that its kernels would be chosen for."""
    optimal, largest = tensorrt.optimal_batch_size, serving.gpu.max_batch_size
    if optimal is not None and optimal > largest:
        raise ValueError(f"tensorrt.optimal_batch_size {optimal} is above serving.gpu.max_batch_size {largest}")


def distinct(precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
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
    """Name that clients call, unless a fleet file gives another: 1 to 63 of a-z, 0-9 and _, beginning with a letter."""
    task: Task = "multiclass"
    """`multiclass`: one right class for each image. `multilabel`: any number of labels, even none."""
    data: Data
    """The location of the images, and their splits."""
    preprocess: Preprocess
    """How an encoded image becomes the network's input."""
    backbone: Backbone
    """The timm model below the head; `auto` chooses it by the number of images."""
    recipe: Recipe = Recipe()
    """How the network is trained; `auto` chooses what is not given."""
    compute: Compute = Compute()
    """The devices that train."""
    tracking: Tracking = Tracking()
    """The logger of the training's metrics."""
    decision: DecisionPolicy = DecisionPolicy()
    """How the network's output becomes an answer."""
    calibration: Calibration = Calibration()
    """The images that set the ranges of INT8 and FP8."""
    sensitive_layers: SensitiveLayers = SensitiveLayers()
    """The search that keeps layers in FP16 where plain INT8 loses too much."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), AfterValidator(distinct)] = ("int8",)
    """Precisions that may be served. Each lane takes the fastest measured one that is listed and passes the gate: the
    cpu lane of int8, bf16 and fp32, the gpu lane of int8, fp8 (Ada and later), fp16 and fp32. FP32 is always built, as
    the reference."""
    accuracy: AccuracyGate = AccuracyGate()
    """The loss against FP32 with which a precision may still be served."""
    tensorrt: TensorRT = TensorRT()
    """Build options of the gpu lane's plans."""
    latency: LatencyGate = LatencyGate()
    """The latency budget, which is only recorded."""
    serving: Serving = Serving()
    """Options of the steps in Triton."""

    @property
    def training_sha256(self) -> str:
        """The hash of every field that the weights depend on."""
        trained = {name: value for name, value in self.plain().items() if name not in AFTER_TRAINING}
        if self.data.labels is None:
            del trained["data"]["labels"]  # checkpoints of earlier releases have no such key
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
                "recipe.freeze_epochs and unfreeze_epochs protect a trained backbone, but backbone.pretrained: false "
                "starts untrained; use pretrained weights, or set both to 0"
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
        check_optimal_batch(self.tensorrt, self.serving)
        return self
