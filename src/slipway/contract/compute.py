"""`Compute`: the devices and machines that training runs on."""

from typing import Literal

from pydantic import Field

from slipway.contract.base import Contract


class Compute(Contract):
    """One process a device, by Lightning's strategies. `recipe.batch_size` is that of all processes together."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | None = Field(default=None, ge=1, le=64)
    """Of each machine; left out: what torchrun started, else 1. On `cpu` these are processes."""
    nodes: int | None = Field(default=None, ge=1, le=1024)
    """Machines; left out: what torchrun started, else 1. More than one needs torchrun."""
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    """`auto` is ddp for more than one process. The other one is for backbones with weights that a step may not use."""
