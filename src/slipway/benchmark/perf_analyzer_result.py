"""What perf_analyzer is asked for and what it found: its exports read into a report, as JSON and as a table."""

import csv
import json
import re
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from slipway.benchmark.result import Latency, Machine, Positive
from slipway.contract.base import Contract
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
# The table has an ensemble's own queue, where nobody waits; the spoken report adds up its steps'.
_SPOKEN = {"requests": r"Client:.*?Request count: (\d+)", "queue_us": r"Server:.*?\bqueue (\d+) usec"}


class PerfAnalyzerOptions(Contract):
    """One measurement of an ensemble and of each of its steps, over gRPC and without shared memory."""

    model: Annotated[str, Field(min_length=1)]
    """The ensemble."""
    images: Path
    """A folder; image files below it are sent."""
    url: Annotated[str, Field(pattern=r"^[^/]+:\d+$")] = "127.0.0.1:8001"
    """host:port of Triton's gRPC."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests that are always under way: a closed loop."""
    rate_per_s: Positive | None = None
    """Poisson arrivals per second, in place of a concurrency."""
    duration_s: Annotated[float, Field(gt=0, le=300)] = 6.0
    """Of the measurement of each model, in three windows."""
    warm_up_s: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Under the same load before that, and not counted."""
    distinct_images: Annotated[int, Field(ge=1, le=1024)] = 64
    """At most so many of the folder, in a seeded draw."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draw. perf_analyzer seeds its schedule itself."""

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        if (self.concurrency is None) == (self.rate_per_s is None):
            raise ValueError("give either concurrency or rate_per_s")
        return self


class ModelRun(Contract):
    """What one model did under the load: perf_analyzer's own figures, in µs from the actual send to the answer."""

    model: str
    requests: int
    throughput_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    queue_us: float
    """This and the following: the server's own account per request; an ensemble's is the sum of its steps'."""
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float


class PerfAnalyzerResult(Contract):
    """Everything that one measurement found."""

    options: PerfAnalyzerOptions
    caveats: tuple[str, ...]
    """What these figures are not."""
    bundle: str
    """The id of the bundle that answered."""
    distinct_images: int
    runs: tuple[ModelRun, ...]
    """The ensemble, then its steps in order, each alone."""
    latency: Latency
    """Of the ensemble, from the raw times."""
    histogram: str
    """The raw one of those times in µs (HdrHistogram V2, compressed, base64)."""
    shares_cores_with_server: bool
    server: str
    machine: Machine
    versions: dict[str, str]
    """perf_analyzer's is that of its wheel, tritonclient."""
    commit: str | None
    created: str


def table(result: PerfAnalyzerResult) -> str:
    """A row for each model, and what the figures are not."""
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
    """Read one run from the table that perf_analyzer writes with `-f`, and from what it says.

    Raises:
        ServingError: they are not what perf_analyzer 2.51 writes and says.
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
    """The latency of each request, from `--profile-export-file`.

    Raises:
        ServingError: it is not what perf_analyzer 2.51 writes, or there is no request in it.
    """
    try:
        # It writes the tensors into its JSON as well, and the bytes of an image are no UTF-8.
        (experiment,) = json.loads(export.read_text(encoding="latin-1"))["experiments"]
        times_ns = [(r["timestamp"], r["response_timestamps"][-1]) for r in experiment["requests"]]
        sent_ns, answered_ns = np.array(times_ns, np.int64).T
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ServingError(f"{export.name}: not an export of perf_analyzer 2.51: {_short(error)}") from None
    return np.asarray((answered_ns - sent_ns) / 1e6, np.float64)


def _found(pattern: str, report: str) -> int:
    found = re.search(pattern, report, re.DOTALL)
    if found is None:
        raise ValueError(f"no {pattern!r} in what it says")
    return int(found[1])


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
