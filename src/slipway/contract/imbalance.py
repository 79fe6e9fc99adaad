"""`Loss` and `Balance`: a recipe's options for classes with few images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.decision import Probability, Task

ClassWeights = Literal["none", "inverse_frequency", "effective_number"]
Balance = Literal["none", "square_root", "equal"]
"""How often an epoch shows each image of a class with n images, if the largest class has n_max. `none`: once.
`square_root`: the square root of n_max / n times. `equal`: n_max / n times."""


class Loss(Contract):
    """The training loss. `slipway.training.learn.losses` and `weighting` have the formulas."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Kind of loss, over the softmax for multi-class and over each label's sigmoid for multi-label."""
    class_weights: ClassWeights = "none"
    """Weights of the classes; for multi-label, of images with a label against those without it."""
    beta: float | None = Field(default=None, ge=0.0, lt=1.0)
    """For `effective_number`, 0.999 by default. 0 weighs all classes alike; near 1 it equals `inverse_frequency`."""
    gamma: float | None = Field(default=None, ge=0.0, le=10.0)
    """For `focal`, 2 by default: how strongly easy examples are down-weighted. 0 is cross-entropy."""
    alpha: Probability | None = None
    """For `focal` and multi-label: a present label weighs alpha, an absent one 1 - alpha. By default both weigh 1."""

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
        """Raises ValueError: an option does not suit the task, or the imbalance is corrected twice."""
        if self.alpha is not None and task != "multilabel":
            raise ValueError("recipe.loss.alpha belongs to multilabel; for multiclass use class_weights")
        if self.class_weights != "none" and balance != "none":
            raise ValueError(
                "recipe.loss.class_weights and recipe.balance correct the same imbalance twice; give one of them"
            )
