"""From a bundle to engines that passed their gates."""

from slipway.engines.gate import PASS, GateResult, compare
from slipway.engines.openvino import build_engine
from slipway.engines.quantize import quantize

__all__ = ["PASS", "GateResult", "build_engine", "compare", "quantize"]
