"""What the latency gate, the search for a capacity and perf_analyzer are asked for and find: their result files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.evidence.origin import Origin

Positive = Annotated[float, Field(gt=0)]
MIN_DISTINCT_IMAGES = 256
"""For a figure that is published: caches and branch predictors learn a handful of images by heart."""


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    TOO_FEW = "too few requests to tell"
    LATE = "generator late"
    """The client could not keep to its schedule: nothing is said of the server."""


class GateOptions(Contract):
    """One measurement. It ends when it can tell, or after a time that is known before it starts."""

    model: Annotated[str, Field(min_length=1)]
    """The ensemble to ask."""
    images: Path
    """A folder; every image file below it may be sent."""
    url: Annotated[str, Field(pattern=r"^[^/]+:\d+$")] = "127.0.0.1:8001"
    """host:port of Triton's gRPC."""
    rate_per_s: Positive = 50.0
    """Poisson arrivals per second, one image each."""
    limit_ms: Positive = 50.0
    """The limit on P99."""
    blocks: Annotated[int, Field(ge=2)] = 3
    """Before the first verdict; while they cannot tell, more follow, each half as long as all before it."""
    requests_per_block: Annotated[int, Field(ge=1)] = 1000
    """Counted ones, at the least."""
    minutes: Positive = 5.0
    """The length of the schedule after which no block is added."""
    warm_up_requests: Annotated[int, Field(ge=0)] = 100
    """Sent at the start of every block, at the same rate, and not counted."""
    deadline_ms: Positive = 1000.0
    """After which the client gives a request up."""
    generators: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes that send; None: chosen by the rate and the cores."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the schedules and of the order of the images."""
    server_pid: int | None = None
    """The server's process, to report its CPU use and memory."""

    @model_validator(mode="after")
    def _deadline_after_limit(self) -> Self:
        if self.deadline_ms <= self.limit_ms:
            raise ValueError(f"deadline_ms {self.deadline_ms:g} must be above limit_ms {self.limit_ms:g}")
        return self

    @property
    def least_s(self) -> float:
        """Until the first verdict."""
        return self.blocks * (self.warm_up_requests + self.requests_per_block) / self.rate_per_s


class Latency(Contract):
    """Percentiles in milliseconds, read from a histogram with three significant figures."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class BlockResult(Contract):
    """One block; `histogram` is the raw one of its latencies in µs (HdrHistogram V2, compressed, base64)."""

    verdict: Verdict
    reason: str
    requests: int
    over_limit: int
    failures: dict[str, int]
    latency: Latency
    histogram: str


class LookResult(Contract):
    """What all blocks so far said when the gate looked at them."""

    verdict: Verdict
    after_s: float
    """Since the first block began."""
    requests: int
    over_limit: int
    independent: int
    """How many independent requests they are worth."""
    needed: int
    """How many independent requests would have passed, as many of them over the limit."""


class WarmUp(Contract):
    """What is not counted: the first answer after connecting, and the start of the first block."""

    first_answer_ms: float
    requests: int
    duration_s: float


class Generator(Contract):
    """The client itself. Its schedule error (actual minus scheduled send) is part of every latency."""

    processes: int
    processes_reason: str
    schedule_error_p50_ms: float
    schedule_error_p99_ms: float
    schedule_error_max_ms: float
    schedule_error_limit_ms: float
    """What its P99 may be; over that the verdict is not on the server."""
    cpu_cores: float
    shares_cores_with_server: bool
    go_first: bool = False
    """They go before the server where they share its cores, as if they had some of their own."""


class StepTime(Contract):
    """The server's own account of one model, per request, from the deltas of its statistics."""

    model: str
    requests: int
    images_per_execution: float
    """1 means that no dynamic batches formed; 0 for an ensemble, which executes nothing itself."""
    queue_us: float
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float
    total_us: float


class ServerUse(Contract):
    processes: int
    cpu_cores: float
    peak_rss_mib: float
    """The sum of each process's own peak since it started."""


class Measured(Contract):
    """What one rate showed."""

    verdict: Verdict
    reason: str
    offered_per_s: float
    achieved_per_s: float
    """Right answers per second of the schedule's time, or of more if the last came more than the limit after it."""
    latency: Latency
    """Of all blocks: their histograms are merged."""
    failures: dict[str, int]
    blocks: tuple[BlockResult, ...]
    looks: tuple[LookResult, ...] = ()
    """In their order; the verdict is that of the last. Results from before there were looks have none."""
    warm_up: WarmUp
    generator: Generator
    steps: tuple[StepTime, ...]
    """The ensemble, then its steps in order."""
    server_use: ServerUse | None


class Provenance(Origin):
    """What was measured, by what, where and when."""

    caveats: tuple[str, ...]
    """Why the figures must not be published as they are; empty when they may."""
    options: GateOptions
    bundle: str
    """The id of the bundle that answered: its evaluation holds the accuracy that belongs to this speed."""
    distinct_images: int
    server: str


class GateResult(Measured, Provenance):
    """Everything that one run of the latency gate found."""


class Rung(Measured):
    """One rate of a search for the capacity."""

    rate_per_s: float
    confirms: bool
    """As the gate does: a verdict that counts. Else one block, to know where to look."""


class CapacityResult(Provenance):
    """The interval that holds the capacity, and every rate that was tried, in that order."""

    verdict: Verdict
    """Of the last rung: pass where the capacity is confirmed."""
    reason: str
    passed_per_s: float | None
    """The highest rate that was shown to pass."""
    not_passed_per_s: float | None
    """The lowest rate above it that was not."""
    rungs: tuple[Rung, ...]


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


class PerfAnalyzerResult(Origin):
    """Everything that one measurement found. The version of perf_analyzer is that of its wheel, tritonclient."""

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
