"""`Recipe`: how a network is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from slipway.contract.augmentation import Augmentation
from slipway.contract.base import Contract
from slipway.contract.imbalance import Balance, Loss

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy, scikit-learn and torch all take
AUTO = "auto"


class Head(Contract):
    """What stands on the embedding and gives the logits."""

    kind: Literal["linear", "mlp"] = "linear"
    units: int = Field(default=512, ge=1)
    """Of the hidden layer of `mlp`."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Before each linear layer, in training alone."""


class Recipe(Contract):
    """How the network is trained. Validation, test and serving never see the augmentation."""

    preset: Literal["auto"] | None = None
    """`auto`: what is not given is chosen by the number of images (docs/recipe.md). `recipe: auto` is short for it. The
    checkpoint's spec has what was chosen, and no preset."""
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    accumulate_batches: int = Field(default=1, ge=1)
    """Batches whose gradients make one step of the optimiser."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Of `sgd`, by Nesterov where it is over 0."""
    learning_rate: float = Field(default=1e-3, gt=0.0)
    """Of the head, after the warm-up; a cosine takes it to 0."""
    backbone_multiplier: float = Field(default=1.0, gt=0.0, le=1.0)
    """The backbone learns at `learning_rate` times this."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Each layer of the backbone, as timm counts them, learns at the rate of the one above times this."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Of weights; biases, norms and what timm excepts for a backbone have none."""
    warmup_epochs: int = Field(default=2, ge=0)
    gradient_clip: float | None = Field(default=None, gt=0.0)
    """The largest norm of the gradient of all weights."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    loss: Loss = Loss()
    balance: Balance = "none"
    """Images of rare classes are seen more often in an epoch."""
    head: Head = Head()
    freeze_epochs: int = Field(default=0, ge=0)
    """The head alone learns for so many epochs; `epochs` or more freezes the backbone for good."""
    unfreeze_epochs: int = Field(default=0, ge=0)
    """Over so many epochs more the backbone's stages join, from the top; 0: all at once."""
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Validate and keep an exponential moving average of the weights, which each step keeps so much of."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic in training (mixed); weights stay FP32. Serving's precisions are `precisions`."""
    augment: Augmentation = Augmentation()
    monitor: Literal["val_loss", "val_macro_f1"] = "val_loss"
    """What chooses the epoch whose weights are kept, and stops early. The loss settles equal macro-F1."""
    patience_epochs: int = Field(default=8, ge=1)
    """Early stopping: epochs without a better `monitor`. It waits for the last phase."""
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_preset(cls, data: Any) -> Any:
        return {"preset": AUTO} if data == AUTO else data

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

    @model_serializer(mode="wrap")
    def _leave_to_the_preset_what_is_its_own(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        if self.preset is None:
            return values
        return {name: value for name, value in values.items() if name in self.model_fields_set}
