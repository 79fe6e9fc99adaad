"""Measures latency and capacity: open-loop load, a statistical verdict, and a complete result file."""

from slipway.benchmark.capacity import find_capacity
from slipway.benchmark.gate import run_gate
from slipway.benchmark.summary import capacity_summary, rung_line, summary
from slipway.contract.evidence.latency import CapacityResult, GateOptions, LatencyResult, LatencyVerdict

__all__ = [
    "CapacityResult",
    "GateOptions",
    "LatencyResult",
    "LatencyVerdict",
    "capacity_summary",
    "find_capacity",
    "run_gate",
    "rung_line",
    "summary",
]
