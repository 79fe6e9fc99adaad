"""Makes a bundle from a spec and class folders, or from an existing network."""

import logging

# torch warns that it cannot count triton kernels; none run here, and the package is deliberately not installed.
logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)

# ruff: noqa: E402
from slipway.training.bundle.export import export
from slipway.training.bundle.importing import complete_spec, import_onnx, import_timm
from slipway.training.learn.fit import train
from slipway.training.learn.ready import get_ready

__all__ = ["complete_spec", "export", "get_ready", "import_onnx", "import_timm", "train"]
