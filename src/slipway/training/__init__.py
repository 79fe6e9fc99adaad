"""Makes a bundle from a spec and class folders, or from an existing network; and heads, which need no torch."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

# torch warns that it cannot count triton kernels; none run here, and the package is deliberately not installed.
logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from slipway.training.bundle.export import export
    from slipway.training.bundle.importing import complete_spec, import_onnx, import_timm
    from slipway.training.learn.check_training import get_ready
    from slipway.training.learn.train import train

__all__ = ["complete_spec", "export", "get_ready", "import_onnx", "import_timm", "train"]
_HOMES = {"export": "bundle.export", "train": "learn.train", "get_ready": "learn.check_training"}


def __getattr__(name: str) -> Any:
    """Import what `__all__` names when it is asked for: torch takes seconds, and a head does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'bundle.importing')}"), name)
