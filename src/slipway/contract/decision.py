"""`Decision`: how logits become an answer. `slipway.steps.postprocess` implements it."""

import base64
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.contract.typed_file import Contract

Task = Literal["multiclass", "multilabel"]
Score = Literal["max_probability", "energy", "embedding"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Slope = Annotated[float, Field(gt=0.0, le=1000.0)]
Offset = Annotated[float, Field(ge=-1000.0, le=1000.0)]


class ClassMeans(Contract):
    """Mean embedding of each class, small enough for `decision.json`."""

    int8: str
    """Base64 of the means as INT8 `[classes, d]`, in class order."""
    step: float = Field(gt=0.0)
    """Size of one INT8 step in the embedding's own units."""

    @property
    def size(self) -> int:
        """Number of values: classes times embedding size."""
        return len(base64.b64decode(self.int8))

    @model_validator(mode="after")
    def _int8_is_base64(self) -> Self:
        base64.b64decode(self.int8, validate=True)  # its error is a ValueError that says what is wrong
        return self


class Unknown(Contract):
    """A multi-class answer is `unknown` if its score lies below the threshold.

    The scores are defined in `slipway.steps.postprocess.familiarity`: the best probability, the energy of the
    logits divided by the temperature, or minus the distance from the embedding to the nearest class mean.
    """

    score: Score = "max_probability"
    threshold: float
    class_means: ClassMeans | None = None
    """Mean embeddings for the score `embedding`; None for any other score."""

    @model_validator(mode="after")
    def _fields_belong_to_the_score(self) -> Self:
        if self.score == "max_probability" and not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"the threshold of max_probability must lie between 0 and 1; given {self.threshold}")
        if (self.class_means is None) == (self.score == "embedding"):
            raise ValueError("class_means belong to score: embedding, and it needs them")
        return self


class Decision(Contract):
    """Temperature, top-k, thresholds and the `unknown` policy of one bundle.

    Probabilities are softmax(logits / temperature) for multi-class and sigmoid(logits / temperature) for
    multi-label (temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017), or
    sigmoid(slope * logits + offset) with `platt`.
    """

    task: Task
    top_k: int = Field(ge=1, le=1000)
    temperature: float = Field(default=1.0, ge=0.001, le=1000.0)
    thresholds: tuple[Probability, ...] | None = None
    """Multi-label only: one per class, in class order. A label is given when its probability reaches its threshold."""
    platt: tuple[tuple[Slope, Offset], ...] | None = None
    """Multi-label only, instead of the temperature: slope and offset of each class's logit, in class order."""
    unknown: Unknown | None = None
    """The rule for answering `unknown`; multi-class only."""

    @model_validator(mode="after")
    def _fields_belong_to_the_task(self) -> Self:
        if self.task == "multilabel" and not self.thresholds:
            raise ValueError("a multilabel decision needs thresholds, one per class")
        if self.task == "multilabel" and self.unknown is not None:
            raise ValueError("unknown belongs to multiclass; a multilabel answer without labels is empty")
        if self.task == "multiclass" and self.thresholds is not None:
            raise ValueError("thresholds belong to multilabel; for multiclass use unknown")
        if self.platt is not None and self.thresholds is None:
            raise ValueError("platt belongs to multilabel; for multiclass use temperature")
        if self.platt is not None and self.thresholds is not None and len(self.platt) != len(self.thresholds):
            raise ValueError(
                f"{len(self.platt)} pairs in platt but {len(self.thresholds)} thresholds; give one of each per class"
            )
        return self

    @property
    def needs_embedding(self) -> bool:
        """Whether post-processing needs the embedding."""
        return self.unknown is not None and self.unknown.score == "embedding"
