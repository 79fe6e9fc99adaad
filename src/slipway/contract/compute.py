"""`Compute`: the devices and machines that training runs on."""

from typing import Literal

from pydantic import Field

from slipway.contract.base import Contract


class Compute(Contract):
    """One process per device, by Lightning's strategies. `recipe.batch_size` is the total over all processes."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | None = Field(default=None, ge=1, le=64)
    """Devices of each machine; on `cpu`, processes. The default is what torchrun started, else 1."""
    nodes: int | None = Field(default=None, ge=1, le=1024)
    """Number of machines. The default is what torchrun started, else 1. More than one needs torchrun."""
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    """`auto` is `ddp` for more than one process. Use the third if a step may leave weights unused."""
