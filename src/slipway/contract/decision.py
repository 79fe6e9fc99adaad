"""`Decision`: what turns logits into an answer. `slipway.steps.postprocess` carries it out."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract

Task = Literal["multiclass", "multilabel"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Unknown(Contract):
    """When a multi-class answer is `unknown`: its score lies under the threshold."""

    score: Literal["max_probability"] = "max_probability"
    threshold: Probability


class Decision(Contract):
    """Temperature, top-k, thresholds and the `unknown` policy of one bundle.

    Probabilities are softmax(logits / temperature) for multi-class and sigmoid(logits / temperature) for
    multi-label (temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """

    task: Task
    top_k: int = Field(ge=1, le=1000)
    temperature: float = Field(default=1.0, ge=0.001, le=1000.0)
    thresholds: tuple[Probability, ...] | None = None
    """Multi-label only: one a class, in class order; a label is given when its probability reaches its own."""
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
        return self
