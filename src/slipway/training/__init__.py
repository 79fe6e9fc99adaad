"""From a spec and class folders to a bundle."""

import logging

# torch warns that it cannot count triton kernels; none run here, and the package is left out on purpose.
logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)

# ruff: noqa: E402
from slipway.training.export import export
from slipway.training.fit import train

__all__ = ["export", "train"]
