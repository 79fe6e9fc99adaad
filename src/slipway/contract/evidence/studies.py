"""The study results that the speed page shows. A study may record more fields than these."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from slipway.contract.evidence.latency import Latency
from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Evidence

Failures = dict[str, int]


class Part(Evidence):
    """A part of a result. The page shows only the named keys."""

    model_config = ConfigDict(extra="allow", serialize_by_alias=True)


class StudyResult(Evidence, Origin):
    model_config = Part.model_config

    seed: int


class ServedResult(StudyResult):
    """A result measured on a server."""

    client_shares_the_cores: bool


Stage = Literal["pilot", "search", "round"]


class ClimbBlock(Part):
    """One block of a search for the highest rate that a side holds."""

    side: str
    stage: Stage
    round: int
    rate_per_s: float
    held: bool
    """Whether at most one request in a hundred was over the limit, at 99 % of the rate, with the client on time."""
    offered_per_s: float
    achieved_per_s: float
    requests: int
    over_limit: int
    failures: Failures
    generator_late: bool
    generator_late_p99_ms: float
    latency: Latency
    histogram: str
    """Latencies in µs (HdrHistogram V2, compressed, base64)."""
    client_cpu_cores: float


class Share(Part):
    """Ratio of two capacities over the rounds."""

    mean: float
    least: float
    most: float


class Tail(Part):
    """Latency of one side at 70 % of the rate that it held."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    ratio: float
    """P99 over P50."""


class Efficient(Part):
    """One classifier: the capacity of each side, and where an image's time goes."""

    batches: dict[str, str]
    share_of_pool: dict[str, Share]
    auto_to_plain: Share
    """Capacity of what `serving.layout: auto` chooses, relative to `steps` with its defaults."""
    auto_to_former: Share | None = None
    """Capacity of what `auto` chooses, relative to the default of `former_commit`."""
    capacity_per_s: dict[str, tuple[float, ...]]
    one_by_one_ms: dict[str, dict[str, float]]
    processor_ms: dict[str, dict[str, float]]
    distinct_images: int
    tail: dict[str, Tail] = Field(default={})
    blocks: tuple[ClimbBlock, ...]


class EfficiencyResult(ServedResult):
    """The study `efficiency`: Triton's layouts against in-process workers without a server."""

    limit_ms: float
    targets: dict[str, float]
    former_commit: str | None = None
    """The earlier revision whose default was a side too."""
    classifiers: Mapping[str, Efficient] = Field(min_length=1)

    @property
    def distinct_images(self) -> int:
        return min(found.distinct_images for found in self.classifiers.values())


class Times(Part):
    """Our capacity over another stack's: the mean, and two standard errors to each side."""

    mean: float
    low: float
    high: float


class Ratio(Part):
    """P99 of a side relative to that of another, of all requests and by round."""

    of_all: float
    by_round: tuple[float, ...]


class LightLoad(Part):
    rate_per_s: float
    over_slipway_fused: dict[str, dict[str, Share]]
    """Latency of each stack over ours, by percentile."""


class PeersResult(ServedResult):
    """The study `peers`: the same classifier behind other servers."""

    limit_ms: float
    distinct_images: int
    backbone: str
    settings: dict[str, str]
    left_out: dict[str, str]
    capacity_per_s: dict[str, tuple[float, ...]]
    times_the_capacity: dict[str, Times] = Field(min_length=1)
    light_load: LightLoad
    blocks: tuple[ClimbBlock, ...]


class Reload(Part):
    rate_per_s: float
    reloads: int
    reload_seconds_max: float
    requests: int
    failed: Failures
    failed_without_reloads: Failures
    answers_of_no_version: int
    mixed: int
    p99_ms_without_reloads: float
    p99_ms: float


class Kill(Part):
    seconds_to_first_right_answer: float | None
    seconds_until_the_last_error: float
    requests: int
    lost: Failures
    longest_wait_s: float


class Afterwards(Part):
    seconds_to_normal: float | None


class Overloaded(Part):
    offered_per_s: float
    goodput_share_of_capacity: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    failures: Failures
    generator_late_p99_ms: float
    afterwards: Afterwards


class Ladder(Part):
    rate_per_s: float
    p99_ms: float


class Overload(Part):
    """Capacity of one layout, and its behaviour at 3 and 10 times that rate."""

    capacity_per_s: float
    ladder: tuple[Ladder, ...]
    three: Overloaded = Field(alias="3x")
    ten: Overloaded = Field(alias="10x")


class Company(Part):
    """One classifier of a repository, measured while the others are idle."""

    seconds_to_ready: float
    memory_mib: float
    p50_ms: float
    p99_ms: float
    failed: Failures
    seconds_from_kill_to_all_answering: float | None = None


class Companies(Part):
    """One layout, with one classifier and with 50."""

    alone: Company = Field(alias="1")
    among: Company = Field(alias="50")
    memory_mib_of_each_additional: float


class Fifty(Part):
    classifiers: int
    __pydantic_extra__: dict[str, Companies]

    @property
    def layouts(self) -> dict[str, Companies]:
        return self.__pydantic_extra__

    @model_validator(mode="before")
    @classmethod
    def _only_layout(cls, data: Any) -> Any:
        """Older files have one layout, whose parts stand beside the count."""
        if not isinstance(data, dict) or "50" not in data:
            return data
        return {"classifiers": data["classifiers"], "steps": {k: v for k, v in data.items() if k != "classifiers"}}


class RobustnessResult(ServedResult):
    """The study `robustness`: the parts that were run."""

    distinct_images: int
    reload: Reload | None = None
    kills: dict[str, Kill] | None = None
    overload: dict[str, Overload] | None = None
    fifty: Fifty | None = None


class RulePasses(Part):
    rule: float
    """Share of the runs that pass."""
    fails: float
    """Share of the runs that fail."""
    seconds: float
    """Mean duration of a run."""


class JudgedServer(Part):
    server: str
    utilisation: float | None
    rate_per_s: float
    true_p99: float
    """True P99 of the simulated server, in mean service times."""
    passes: dict[str, RulePasses]
    """Share of passes for each true P99."""
    allowed: float | None
    """Allowed share of false passes among all runs; None if the rule is known to break."""


class VerdictResult(StudyResult):
    """The study `verdict`: how often the verdict errs on simulated servers."""

    runs: int
    blocks: int
    requests_per_block: int
    warm_up_requests: int
    minutes: float
    servers: tuple[JudgedServer, ...]


class Started(Part):
    """A server of one head, or of many."""

    assemble_s: float
    ready_s: float
    memory_mib: float


class DensityLatency(Part):
    """One head alone, the same among many, and requests spread over many."""

    heads: int
    alone: Started
    among: Started
    rate_per_s: float
    p99_ms: dict[str, float]
    failed: Failures
    memory_mib_of_each_additional: float


class DensityResult(ServedResult):
    """The study `density`: many heads on one base."""

    backbone: str
    limit_ms: float
    latency: DensityLatency | None = None
