"""Makes engines from a bundle, and passes each through its gate."""

from slipway.engines.choose import choose, choose_plan
from slipway.engines.compile import COMPILED, build_engine, wanted
from slipway.engines.quantize import quantize
from slipway.evaluation.gate import compare

__all__ = [
    "COMPILED",
    "build_engine",
    "choose",
    "choose_plan",
    "compare",
    "quantize",
    "wanted",
]
