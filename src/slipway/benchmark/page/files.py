"""Reads result files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.contract.evidence.kinds import KINDS, parse_result
from slipway.contract.evidence.latency import CapacityResult, LatencyResult, Measured, PerfAnalyzerResult
from slipway.contract.evidence.studies import (
    DensityResult,
    EfficiencyResult,
    PeersResult,
    RobustnessResult,
    VerdictResult,
)
from slipway.contract.evidence.tuning import TuningResult
from slipway.errors import SpecError
from slipway.system.files import sha256_bytes

Sides = EfficiencyResult | PeersResult | RobustnessResult
"""Results that compare stacks or layouts measured in one run."""
Result = LatencyResult | CapacityResult | PerfAnalyzerResult | Sides | VerdictResult
SHOWN = tuple(kind for kind, (_, model) in KINDS.items() if model not in (TuningResult, DensityResult))
"""The kinds that the page shows."""


@dataclass(frozen=True)
class ResultFile:
    """One file of measurements."""

    name: str
    """File name, with enough of its path to be unique."""
    kind: str
    """The script or study below benchmarks/ that wrote the file."""
    sha256: str
    result: Result


def read_files(paths: Sequence[Path]) -> tuple[ResultFile, ...]:
    """Read and check every file.

    Raises:
        SpecError: a file cannot be read, is given twice, is of no known kind or lacks a figure of its kind.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise SpecError("a result file is given twice; give each once")
    return tuple(_read(path, name) for path, name in zip(paths, _names(paths), strict=True))


def ends_with(result: LatencyResult | CapacityResult) -> Measured:
    """Return the gate itself, or the last rate of a search, which its verdict judges."""
    return result.rungs[-1] if isinstance(result, CapacityResult) else result


def _read(path: Path, name: str) -> ResultFile:
    try:
        text = path.read_bytes()
        data = json.loads(text)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # ValueError: bad UTF-8 or JSON
        raise SpecError(f"{path}: not valid JSON: {error}") from None
    kind, result = parse_result(data, source=str(path)) or ("", None)
    if result is None or isinstance(result, TuningResult | DensityResult):
        raise SpecError(f"{path}: not a result file of a known kind; give one written by {', '.join(SHOWN)}")
    return ResultFile(name, kind, sha256_bytes(text), result)


def _names(paths: Iterable[Path]) -> list[str]:
    """Name files as `digits.json`, or `before/digits.json` and `after/digits.json` where two share a name."""
    absolute = [path.resolve().parts for path in paths]
    longest = max(map(len, absolute), default=1)
    candidates = (["/".join(parts[-count:]) for parts in absolute] for count in range(1, longest + 1))
    return next(names for names in candidates if len(set(names)) == len(names))
