"""`Recipe`: how a network is trained."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from slipway.contract.augmentation import Augmentation
from slipway.contract.base import Contract

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy, scikit-learn and torch all take


class Recipe(Contract):
    """How the network is trained. Validation, test and serving never see the augmentation."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    warmup_epochs: int = Field(default=2, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    augment: Augmentation = Augmentation()
    patience_epochs: int = Field(default=8, ge=1)
    """Early stopping: epochs without a better validation loss."""
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _augmentation_once_stood_beside_the_rest(cls, data: Any) -> Any:
        """Checkpoints and bundles of before have these three in their `spec.json`."""
        moved = {"crop_scale", "horizontal_flip", "rotate_degrees"}
        if not isinstance(data, dict) or not moved & data.keys():
            return data
        if "augment" in data:
            raise ValueError(f"{', '.join(sorted(moved & data.keys()))} belong into augment, which is given too")
        rest = {key: value for key, value in data.items() if key not in moved}
        return rest | {"augment": {key: data[key] for key in sorted(moved & data.keys())}}
