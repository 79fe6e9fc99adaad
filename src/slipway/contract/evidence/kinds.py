"""Kinds of result files. One of its keys identifies a file's kind."""

from typing import Any

from slipway.contract.evidence import studies
from slipway.contract.evidence.latency import CapacityResult, LatencyResult, PerfAnalyzerResult
from slipway.contract.evidence.tuning import TuningResult

Tool = LatencyResult | CapacityResult | PerfAnalyzerResult | TuningResult
Study = (
    studies.EfficiencyResult
    | studies.PeersResult
    | studies.RobustnessResult
    | studies.VerdictResult
    | studies.DensityResult
)
Result = Tool | Study
KINDS: dict[str, tuple[set[str], type[Result]]] = {
    "gate.py": ({"generator"}, LatencyResult),
    "gate.py --find-capacity": ({"passed_per_s"}, CapacityResult),
    "perf_analyzer.py": ({"histogram"}, PerfAnalyzerResult),
    "tune.py": ({"after_to_before"}, TuningResult),
    "studies/efficiency": ({"targets"}, studies.EfficiencyResult),
    "studies/peers": ({"times_the_capacity"}, studies.PeersResult),
    "studies/robustness": ({"reload", "kills", "overload", "fifty"}, studies.RobustnessResult),
    "studies/verdict": ({"servers"}, studies.VerdictResult),
    "studies/density": ({"loss", "first_answer", "latency", "equal", "changes", "whole"}, studies.DensityResult),
}
"""Kinds by script or study below benchmarks/: keys that identify the kind, unless an earlier one fits, and its type."""


def parse_result(data: Any, *, source: str) -> tuple[str, Result] | None:
    """The kind of a result file and its content; None if it is of no known kind.

    Raises:
        SpecError: the file lacks a figure of its kind.
    """
    for kind, (marks, model) in KINDS.items():
        if isinstance(data, dict) and marks & data.keys():
            return kind, model.parse(data, source=source)
    return None
