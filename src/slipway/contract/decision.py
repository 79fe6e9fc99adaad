"""`Decision`: what turns logits into an answer. `slipway.steps.postprocess` carries it out."""

import base64
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract

Task = Literal["multiclass", "multilabel"]
Score = Literal["max_probability", "energy", "embedding"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Slope = Annotated[float, Field(gt=0.0, le=1000.0)]
Offset = Annotated[float, Field(ge=-1000.0, le=1000.0)]


class ClassMeans(Contract):
    """Where the classes lie in the embedding: small enough to be in `decision.json`."""

    int8: str
    """Base64 of INT8 `[classes, d]`, in class order."""
    step: float = Field(gt=0.0)
    """What 1 of them is, in the embedding's own units."""

    @property
    def size(self) -> int:
        """Classes times the size of the embedding."""
        return len(base64.b64decode(self.int8))

    @model_validator(mode="after")
    def _int8_is_base64(self) -> Self:
        base64.b64decode(self.int8, validate=True)  # its error is a ValueError that says what is wrong
        return self


class Unknown(Contract):
    """When a multi-class answer is `unknown`: its score lies under the threshold.

    The scores are defined in `slipway.steps.postprocess.familiarity`: the best probability; the energy of the logits
    over the temperature; minus the distance between the embedding and the nearest class mean.
    """

    score: Score = "max_probability"
    threshold: float
    class_means: ClassMeans | None = None
    """With `embedding`."""

    @model_validator(mode="after")
    def _fields_belong_to_the_score(self) -> Self:
        if self.score == "max_probability" and not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"a threshold of max_probability lies between 0 and 1, given {self.threshold}")
        if (self.class_means is None) == (self.score == "embedding"):
            raise ValueError("class_means belong to score: embedding, which needs them")
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
    """Multi-label only: one a class, in class order; a label is given when its probability reaches its own."""
    platt: tuple[tuple[Slope, Offset], ...] | None = None
    """Multi-label only, in the place of the temperature: slope and offset of each class's logit, in class order."""
    unknown: Unknown | None = None
    """Multi-class only."""

    @model_validator(mode="after")
    def _fields_belong_to_the_task(self) -> Self:
        if self.task == "multilabel" and not self.thresholds:
            raise ValueError("a multilabel decision needs thresholds, one a class")
        if self.task == "multilabel" and self.unknown is not None:
            raise ValueError("unknown belongs to multiclass; a multilabel answer without labels is empty")
        if self.task == "multiclass" and self.thresholds is not None:
            raise ValueError("thresholds belong to multilabel; for multiclass use unknown")
        if self.platt is not None and self.thresholds is None:
            raise ValueError("platt belongs to multilabel; for multiclass use temperature")
        if self.platt is not None and self.thresholds is not None and len(self.platt) != len(self.thresholds):
            raise ValueError(
                f"{len(self.platt)} pairs in platt, and {len(self.thresholds)} thresholds: one a class each"
            )
        return self

    @property
    def needs_embedding(self) -> bool:
        """Whether the post-processing step is to be given the embedding."""
        return self.unknown is not None and self.unknown.score == "embedding"
