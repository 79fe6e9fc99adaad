"""`Recipe`: how a network is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from slipway.contract.augmentation import Augmentation
from slipway.contract.base import Contract
from slipway.contract.imbalance import Balance, Loss

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the range that numpy, scikit-learn and torch all accept
AUTO = "auto"


class Head(Contract):
    """The layers that turn the embedding into logits."""

    kind: Literal["linear", "mlp"] = "linear"
    units: int = Field(default=512, ge=1)
    """Width of the hidden layer of `mlp`."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before each linear layer, in training only."""


class Recipe(Contract):
    """Options of training. Validation, test and serving never see the augmentation."""

    preset: Literal["auto"] | None = None
    """`auto` chooses every option that is not given by the number of images (docs/recipe.md); `recipe: auto` is short
    for it. The checkpoint's spec has the chosen values and no preset."""
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    accumulate_batches: int = Field(default=1, ge=1)
    """Batches whose gradients make up one optimiser step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of `sgd`, Nesterov's if above 0."""
    learning_rate: float = Field(default=1e-3, gt=0.0)
    """Learning rate of the head after the warm-up. A cosine takes it to 0."""
    backbone_multiplier: float = Field(default=1.0, gt=0.0, le=1.0)
    """The backbone's learning rate is `learning_rate` times this factor."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Each backbone layer, as timm counts them, has the learning rate of the layer above times this factor."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Weight decay. Biases, norms and the parameters that timm exempts have none."""
    warmup_epochs: int = Field(default=2, ge=0)
    gradient_clip: float | None = Field(default=None, gt=0.0)
    """The largest norm of the gradient of all weights."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    loss: Loss = Loss()
    balance: Balance = "none"
    """Oversampling: how much more often an epoch shows images of rare classes."""
    head: Head = Head()
    freeze_epochs: int = Field(default=0, ge=0)
    """Epochs in which only the head learns. `epochs` or more keeps the backbone frozen throughout."""
    unfreeze_epochs: int = Field(default=0, ge=0)
    """Further epochs over which the backbone's stages join, from the top. 0: all join at once."""
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights, which is then validated and kept."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Mixed-precision arithmetic in training; weights stay FP32. The spec's `precisions` are those of serving."""
    augment: Augmentation = Augmentation()
    monitor: Literal["val_loss", "val_macro_f1"] = "val_loss"
    """Metric that selects the epoch to keep and stops training early. The loss breaks ties of macro-F1."""
    patience_epochs: int = Field(default=8, ge=1)
    """Epochs without a better `monitor` before training stops early, which happens in the last phase only."""
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_preset(cls, data: Any) -> Any:
        return {"preset": AUTO} if data == AUTO else data

    @model_validator(mode="before")
    @classmethod
    def _augmentation_once_stood_beside_the_rest(cls, data: Any) -> Any:
        """Older checkpoints and bundles have these three fields in `spec.json`."""
        moved = {"crop_scale", "horizontal_flip", "rotate_degrees"}
        if not isinstance(data, dict) or not moved & data.keys():
            return data
        if "augment" in data:
            raise ValueError(f"{', '.join(sorted(moved & data.keys()))} belong in augment; move them there")
        rest = {key: value for key, value in data.items() if key not in moved}
        return rest | {"augment": {key: data[key] for key in sorted(moved & data.keys())}}

    @model_serializer(mode="wrap")
    def _leave_to_the_preset_what_is_its_own(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        if self.preset is None:
            return values
        return {name: value for name, value in values.items() if name in self.model_fields_set}
