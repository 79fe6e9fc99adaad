"""`Loss` and `Balance`: what a recipe does about classes that have few images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.decision import Probability, Task

ClassWeights = Literal["none", "inverse_frequency", "effective_number"]
Balance = Literal["none", "square_root", "equal"]
"""How often an image is seen in an epoch: once; or, of a class with n images where the most frequent one has n_max, the
square root of n_max / n times, or n_max / n times."""


class Loss(Contract):
    """What is minimised. `slipway.training.learn.losses` has the formulas."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Multi-class: of the softmax. Multi-label: of each label's sigmoid."""
    class_weights: ClassWeights = "none"
    """Multi-label: of the images that have a label, against those that do not."""
    beta: float | None = Field(default=None, ge=0.0, lt=1.0)
    """With effective_number, 0.999 where left out: 0 weighs all classes alike, towards 1 it is inverse_frequency."""
    gamma: float | None = Field(default=None, ge=0.0, le=10.0)
    """With focal, 2 where left out: how fast an image's weight falls as it is told better; 0 is cross-entropy."""
    alpha: Probability | None = None
    """With focal and multi-label: weight of a label that is there, 1 - alpha of one that is not; none: both weigh 1."""

    @model_validator(mode="after")
    def _fields_belong_together(self) -> Self:
        if self.gamma is not None and self.kind != "focal":
            raise ValueError("gamma belongs to kind: focal; write that, or leave it out")
        if self.alpha is not None and self.kind != "focal":
            raise ValueError("alpha belongs to kind: focal; for cross_entropy use class_weights")
        if self.beta is not None and self.class_weights != "effective_number":
            raise ValueError("beta belongs to class_weights: effective_number; write that, or leave it out")
        if self.alpha is not None and self.class_weights != "none":
            raise ValueError("alpha and class_weights weigh the same labels; give one of them")
        return self

    def check(self, *, task: Task, balance: Balance) -> None:
        """Raises ValueError: what the task has no use for, or a correction that is made twice."""
        if self.alpha is not None and task != "multilabel":
            raise ValueError("recipe.loss.alpha belongs to multilabel; for multiclass use class_weights")
        if self.class_weights != "none" and balance != "none":
            raise ValueError(
                "recipe.loss.class_weights and recipe.balance make up for the same lack twice; give one of them"
            )
