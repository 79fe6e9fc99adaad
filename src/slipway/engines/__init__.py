"""From a bundle to engines that passed their gates."""

from slipway.engines.choose import choose
from slipway.engines.compile import COMPILED, build_engine
from slipway.engines.gate import compare
from slipway.engines.quantize import quantize

__all__ = [
    "COMPILED",
    "build_engine",
    "choose",
    "compare",
    "quantize",
]
