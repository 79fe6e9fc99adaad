"""`Recipe`: how a network is trained; `Compute`: on which devices; `Tracking`: where its metrics go."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from slipway.contract.augmentation import Augmentation
from slipway.contract.decision import Probability, Task
from slipway.contract.typed_file import Contract

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the range that numpy, scikit-learn and torch all accept
AUTO = "auto"
ClassWeights = Literal["none", "inverse_frequency", "effective_number"]
Balance = Literal["none", "square_root", "equal"]
"""Number of times that an epoch shows each image of a class with n images, if the largest class has n_max. `none`:
once. `square_root`: the square root of n_max / n times. `equal`: n_max / n times."""


class Loss(Contract):
    """The training loss. `slipway.training.learn.losses` and `weighting` have the formulas."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Kind of loss, over the softmax for multi-class and over each label's sigmoid for multi-label."""
    class_weights: ClassWeights = "none"
    """Weights of the classes; for multi-label, of images with a label against those without it."""
    beta: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Beta of `effective_number`, 0.999 by default. 0 weighs all classes alike; near 1 it equals
    `inverse_frequency`."""
    gamma: float | None = Field(default=None, ge=0.0, le=10.0)
    """Gamma of `focal`, 2 by default: how strongly easy examples are down-weighted. 0 is cross-entropy."""
    alpha: Probability | None = None
    """Alpha of `focal` for multi-label: a present label weighs alpha, an absent one 1 - alpha. By default both weigh
    1."""

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


class HeadRecipe(Contract):
    """The layers that turn the embedding into logits."""

    kind: Literal["linear", "mlp"] = "linear"
    """`linear` is one linear layer; `mlp` has a hidden layer before it."""
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
    """Most passes over the training images; training may stop earlier, by `patience_epochs`."""
    batch_size: int = Field(default=64, ge=2)
    """Images in a batch of all processes together: a multiple of their number, and at most all training images."""
    accumulate_batches: int = Field(default=1, ge=1)
    """Batches whose gradients make up one optimiser step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimiser: AdamW, or stochastic gradient descent with `momentum`."""
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
    """Epochs at the start in which the learning rates rise to their full value; 0: none."""
    gradient_clip: float | None = Field(default=None, gt=0.0)
    """The largest norm of the gradient of all weights."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of each target that is spread over all classes; for multi-label, over present and absent. 0: none."""
    loss: Loss = Loss()
    """The training loss."""
    balance: Balance = "none"
    """Oversampling: how much more often an epoch shows images of rare classes."""
    head: HeadRecipe = HeadRecipe()
    """The layers from the embedding to the logits."""
    freeze_epochs: int = Field(default=0, ge=0)
    """Epochs in which only the head learns. `epochs` or more keeps the backbone frozen throughout."""
    unfreeze_epochs: int = Field(default=0, ge=0)
    """Further epochs over which the backbone's stages join, from the top. 0: all join at once."""
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights, which is then validated and kept."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Mixed-precision arithmetic in training; weights stay FP32. The spec's `precisions` are those of serving."""
    augment: Augmentation = Augmentation()
    """Random changes to the training images."""
    monitor: Literal["val_loss", "val_macro_f1"] = "val_loss"
    """Metric that selects the epoch to keep and stops training early. The loss breaks ties of macro-F1."""
    patience_epochs: int = Field(default=8, ge=1)
    """Epochs without a better `monitor` before training stops early, which happens in the last phase only."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the images and the augmentation."""

    @model_validator(mode="before")
    @classmethod
    def _auto_is_a_preset(cls, data: Any) -> Any:
        return {"preset": AUTO} if data == AUTO else data

    @model_validator(mode="before")
    @classmethod
    def _augmentation_once_stood_beside_the_rest(cls, data: Any) -> Any:
        """The bundle of the golden example, tests/assets/colours, has these three fields beside the rest."""
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


class Tracking(Contract):
    """A Lightning logger, which receives every epoch's metrics and learning rate, and the spec as hyper-parameters."""

    logger: Literal["tensorboard", "csv", "mlflow", "wandb", "comet", "lit", "none"] = "tensorboard"
    """`tensorboard` and `csv` write to the folder `<checkpoint>.logs`; the others need a package of their own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the logger's class, for example `tracking_uri` and `experiment_name` for mlflow."""


class Compute(Contract):
    """One process per device, by Lightning's strategies. `recipe.batch_size` is the total over all processes."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """`gpu` trains on CUDA GPUs, `cpu` on the processor; `auto` takes GPUs where there are any."""
    devices: int | None = Field(default=None, ge=1, le=64)
    """Devices of each machine; on `cpu`, processes. The default is what torchrun started, else 1."""
    nodes: int | None = Field(default=None, ge=1, le=1024)
    """Number of machines. The default is what torchrun started, else 1. More than one needs torchrun."""
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    """`auto` is `ddp` for more than one process. Use the third if a step may leave weights unused."""
