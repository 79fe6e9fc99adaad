"""`Recipe`: how a network is trained."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.decision import Probability
from slipway.contract.imbalance import Balance, Loss

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy, scikit-learn and torch all take


class Recipe(Contract):
    """How the network is trained. Validation, test and serving never see the augmentation."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    warmup_epochs: int = Field(default=2, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    loss: Loss = Loss()
    balance: Balance = "none"
    """Images of rare classes are seen more often in an epoch."""
    crop_scale: tuple[Probability, Probability] = (0.7, 1.0)
    """Random resized crop: the share of the image's area that is kept, least and most."""
    horizontal_flip: bool = True
    rotate_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    patience_epochs: int = Field(default=8, ge=1)
    """Early stopping: epochs without a better validation loss."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _crop_scale_is_a_range(self) -> Self:
        if not 0.0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError("crop_scale is [least, most] with 0 < least <= most <= 1")
        return self
