"""`Tracking`: where the metrics of a training run go."""

from typing import Any, Literal

from pydantic import Field

from slipway.contract.base import Contract


class Tracking(Contract):
    """A Lightning logger, which receives every epoch's metrics and learning rate, and the spec as hyper-parameters."""

    logger: Literal["tensorboard", "csv", "mlflow", "wandb", "comet", "lit", "none"] = "tensorboard"
    """`tensorboard` and `csv` write to the folder `<checkpoint>.logs`; the others need a package of their own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the logger's class, for example `tracking_uri` and `experiment_name` for mlflow."""
