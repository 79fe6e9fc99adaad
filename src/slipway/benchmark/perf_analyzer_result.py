"""Reads perf_analyzer's exports into a result, and formats it as a table."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.contract.evidence.latency import ModelRun, PerfAnalyzerResult
from slipway.errors import ServingError

_COLUMNS = {
    "throughput_per_s": "Inferences/Second",
    "p50_us": "p50 latency",
    "p90_us": "p90 latency",
    "p99_us": "p99 latency",
    "compute_input_us": "Server Compute Input",
    "compute_infer_us": "Server Compute Infer",
    "compute_output_us": "Server Compute Output",
}
# The table has an ensemble's own queue, which is always empty; the printed report adds up its steps' queues.
_SPOKEN = {"requests": r"Client:.*?Request count: (\d+)", "queue_us": r"Server:.*?\bqueue (\d+) usec"}


def table(result: PerfAnalyzerResult) -> str:
    """Format a row per model, and the caveats."""
    heading = (
        "ms, and µs at the server",
        "requests",
        "per s",
        "P50",
        "P90",
        "P99",
        "queue",
        "input",
        "infer",
        "output",
    )
    rows = [heading, *(_row(run) for run in result.runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))) for row in rows]
    sharing = "shares the server's cores" if result.shares_cores_with_server else "is on another machine"
    slowest = f"{result.options.model}: P99.9 {result.latency.p999_ms:.1f} ms, max {result.latency.max_ms:.1f} ms"
    return "\n".join([*lines, "", f"{slowest}; the client {sharing}", *result.caveats])


def _row(run: ModelRun) -> tuple[str, ...]:
    times_ms = (time_us / 1000 for time_us in (run.p50_us, run.p90_us, run.p99_us))
    times_us = (run.queue_us, run.compute_input_us, run.compute_infer_us, run.compute_output_us)
    return (
        run.model,
        f"{run.requests:,}",
        f"{run.throughput_per_s:.1f}",
        *(f"{time_ms:.2f}" for time_ms in times_ms),
        *(f"{time_us:,.0f}" for time_us in times_us),
    )


def read_run(model: str, *, table: Path, report: str) -> ModelRun:
    """Read one run from the table that perf_analyzer writes with `-f` and from its printed report.

    Raises:
        ServingError: they do not come from perf_analyzer 2.51.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file))
        figures = {field: float(row[column]) for field, column in _COLUMNS.items()}
        spoken = {field: _found(pattern, report) for field, pattern in _SPOKEN.items()}
    except (OSError, ValueError, TypeError, LookupError, StopIteration) as error:
        raise ServingError(f"{model}: not a report of perf_analyzer 2.51: {_short(error)}") from None
    return ModelRun.model_validate({"model": model, **figures, **spoken})


def read_latencies_ms(export: Path) -> npt.NDArray[np.float64]:
    """Read the latency of each request from `--profile-export-file`.

    Raises:
        ServingError: the file does not come from perf_analyzer 2.51, or holds no request.
    """
    try:
        # It writes the tensors into its JSON as well, and the bytes of an image are not UTF-8.
        (experiment,) = json.loads(export.read_text(encoding="latin-1"))["experiments"]
        times_ns = [(r["timestamp"], r["response_timestamps"][-1]) for r in experiment["requests"]]
        sent_ns, answered_ns = np.array(times_ns, np.int64).T
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ServingError(f"{export.name}: not an export of perf_analyzer 2.51: {_short(error)}") from None
    return np.asarray((answered_ns - sent_ns) / 1e6, np.float64)


def _found(pattern: str, report: str) -> int:
    found = re.search(pattern, report, re.DOTALL)
    if found is None:
        raise ValueError(f"no {pattern!r} in the report")
    return int(found[1])


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
