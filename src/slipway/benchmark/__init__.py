"""How a number is made: open-loop load, a statistical verdict, and a result file with everything in it."""

from slipway.benchmark.gate import run_gate
from slipway.benchmark.result import GateOptions, GateResult
from slipway.benchmark.statistics import Verdict
from slipway.benchmark.summary import summary

__all__ = ["GateOptions", "GateResult", "Verdict", "run_gate", "summary"]
