"""Options and result files of the latency gate, the capacity search and perf_analyzer."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Contract

Positive = Annotated[float, Field(gt=0)]
MIN_DISTINCT_IMAGES = 256
"""Distinct images that a published figure needs: caches and branch predictors memorise a handful."""
STEP = 1.1
"""Ratio of one rung to the next: one round resolves 10 % between two sides, the mean of several rounds less."""
LOWEST_PER_S = 10.0
"""Rate of rung 0; below it there is nothing to compare."""


class LatencyVerdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    TOO_FEW = "too few requests to tell"
    LATE = "generator late"
    """The client could not keep to its schedule, so the verdict is not on the server."""


class GateOptions(Contract):
    """Options of one measurement, which ends when it can tell, or after a time known in advance."""

    model: Annotated[str, Field(min_length=1)]
    """Ensemble to measure."""
    images: Path
    """Folder of images; every image file below it may be sent."""
    url: Annotated[str, Field(pattern=r"^[^/]+:\d+$")] = "127.0.0.1:8001"
    """host:port of Triton's gRPC endpoint."""
    rate_per_s: Positive = 50.0
    """Poisson arrivals per second, one image each."""
    limit_ms: Positive = 50.0
    """Limit on P99 latency, in milliseconds."""
    blocks: Annotated[int, Field(ge=2)] = 3
    """Blocks before the first verdict. While they cannot tell, more follow, each half as long as all before it."""
    requests_per_block: Annotated[int, Field(ge=1)] = 1000
    """Least number of counted requests in a block."""
    minutes: Positive = 5.0
    """Length of the schedule after which no block is added."""
    warm_up_requests: Annotated[int, Field(ge=0)] = 100
    """Requests sent at the start of every block, at the same rate, and not counted."""
    deadline_ms: Positive = 1000.0
    """Time after which the client gives up on a request."""
    generators: Annotated[int, Field(ge=1, le=64)] | None = None
    """Client processes; None chooses by the rate and the cores."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the schedules and of the image order."""
    server_pid: int | None = None
    """Process id of the server, to report its CPU use and memory."""

    @model_validator(mode="after")
    def _deadline_after_limit(self) -> Self:
        if self.deadline_ms <= self.limit_ms:
            raise ValueError(f"deadline_ms {self.deadline_ms:g} must be above limit_ms {self.limit_ms:g}")
        return self

    @property
    def least_s(self) -> float:
        """Time until the first verdict."""
        return self.blocks * (self.warm_up_requests + self.requests_per_block) / self.rate_per_s


class Latency(Contract):
    """Percentiles in milliseconds, read from a histogram with three significant figures."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class BlockResult(Contract):
    """Results of one block; `histogram` has its latencies in µs (HdrHistogram V2, compressed, base64)."""

    verdict: LatencyVerdict
    reason: str
    requests: int
    over_limit: int
    failures: dict[str, int]
    latency: Latency
    histogram: str


class LookResult(Contract):
    """One look of the gate at all blocks so far."""

    verdict: LatencyVerdict
    after_s: float
    """Time since the first block began."""
    requests: int
    over_limit: int
    independent: int
    """Effective number of independent requests among them."""
    needed: int
    """Number of independent requests needed to pass with as many over the limit."""


class WarmUp(Contract):
    """Uncounted requests: the first answer after connecting, and the start of the first block."""

    first_answer_ms: float
    requests: int
    duration_s: float


class Generator(Contract):
    """The load generator. Its schedule error (actual minus scheduled send) is part of every latency."""

    processes: int
    processes_reason: str
    schedule_error_p50_ms: float
    schedule_error_p99_ms: float
    schedule_error_max_ms: float
    schedule_error_limit_ms: float
    """Limit on the P99 schedule error; above it, the verdict is not on the server."""
    cpu_cores: float
    shares_cores_with_server: bool
    go_first: bool = False
    """True if the client has priority over the server on shared cores, as if it had cores of its own."""


class StepTime(Contract):
    """The server's own times for one model, per request, from the deltas of its statistics."""

    model: str
    requests: int
    images_per_execution: float
    """Images per execution: 1 if no dynamic batches formed; 0 for an ensemble, which executes nothing itself."""
    queue_us: float
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float
    total_us: float


class ServerUse(Contract):
    processes: int
    cpu_cores: float
    peak_rss_mib: float
    """Sum of each process's own peak memory since it started."""


class Measured(Contract):
    """Results at one rate."""

    verdict: LatencyVerdict
    reason: str
    offered_per_s: float
    achieved_per_s: float
    """Right answers per second of the schedule, extended if the last answer came more than the limit after its end."""
    latency: Latency
    """Latency over all blocks, from their merged histograms."""
    failures: dict[str, int]
    blocks: tuple[BlockResult, ...]
    looks: tuple[LookResult, ...] = ()
    """Looks in order; the last one gives the verdict. Older results have none."""
    warm_up: WarmUp
    generator: Generator
    steps: tuple[StepTime, ...]
    """Times of the ensemble, then of its steps in order."""
    server_use: ServerUse | None


class Provenance(Origin):
    """Subject and origin of a measurement."""

    caveats: tuple[str, ...]
    """Reasons not to publish the figures as they are; empty if there are none."""
    options: GateOptions
    bundle: str
    """Id of the bundle that answered; its evaluation holds the accuracy that goes with this speed."""
    distinct_images: int
    server: str


class LatencyResult(Measured, Provenance):
    """Complete result of one run of the latency gate."""


class Rung(Measured):
    """Results at one rate of a capacity search."""

    rate_per_s: float
    confirms: bool
    """True if the verdict counts, as the gate's does. False if one block only showed where to look."""


class CapacityResult(Provenance):
    """The interval that contains the capacity, and every rate tried, in order."""

    verdict: LatencyVerdict
    """Verdict of the last rung: `pass` if the capacity is confirmed."""
    reason: str
    passed_per_s: float | None
    """Highest rate shown to pass."""
    not_passed_per_s: float | None
    """Lowest rate above `passed_per_s` that was not shown to pass."""
    rungs: tuple[Rung, ...]


class PerfAnalyzerOptions(Contract):
    """Options of one measurement of an ensemble and of each of its steps, over gRPC without shared memory."""

    model: Annotated[str, Field(min_length=1)]
    """Ensemble to measure."""
    images: Path
    """Folder of images; the image files below it are sent."""
    url: Annotated[str, Field(pattern=r"^[^/]+:\d+$")] = "127.0.0.1:8001"
    """host:port of Triton's gRPC endpoint."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Number of requests always in flight: a closed loop."""
    rate_per_s: Positive | None = None
    """Poisson arrivals per second, instead of a concurrency."""
    duration_s: Annotated[float, Field(gt=0, le=300)] = 6.0
    """Duration of each model's measurement, in three windows."""
    warm_up_s: Annotated[float, Field(ge=0, le=300)] = 1.0
    """Uncounted time under the same load before each measurement."""
    distinct_images: Annotated[int, Field(ge=1, le=1024)] = 64
    """Largest number of images to draw from the folder, by the seed."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw of images. perf_analyzer seeds its own schedule."""

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        if (self.concurrency is None) == (self.rate_per_s is None):
            raise ValueError("give either concurrency or rate_per_s")
        return self


class ModelRun(Contract):
    """One model under the load: perf_analyzer's own figures, in µs from the actual send to the answer."""

    model: str
    requests: int
    throughput_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    queue_us: float
    """The server's own queue time per request. Its times for an ensemble are sums over the steps."""
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float


class PerfAnalyzerResult(Origin):
    """Complete result of one measurement. The version of perf_analyzer is that of its wheel, tritonclient."""

    options: PerfAnalyzerOptions
    caveats: tuple[str, ...]
    """Limits of these figures."""
    bundle: str
    """Id of the bundle that answered."""
    distinct_images: int
    runs: tuple[ModelRun, ...]
    """Figures of the ensemble, then of its steps in order, each measured alone."""
    latency: Latency
    """Latency of the ensemble, from its raw times."""
    histogram: str
    """Histogram of the ensemble's raw times in µs (HdrHistogram V2, compressed, base64)."""
    shares_cores_with_server: bool
    server: str


def rate_at(rung: int) -> float:
    """Return the rate of a rung in requests per second."""
    return LOWEST_PER_S * STEP**rung
