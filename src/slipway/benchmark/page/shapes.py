"""What the page reads of the result files that compare sides: typed, and blind to the rest."""

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from slipway.benchmark.result import Machine
from slipway.contract.base import Contract

Failures = dict[str, int]


class Shown(Contract):
    """A result file, or a part of one, of which the page shows some keys."""

    model_config = ConfigDict(extra="ignore")


class LayoutRound(Shown):
    p50_ms: float
    saturation_per_s: float


class LayoutsResult(Shown):
    """`layouts.py`: one step against three, interleaved."""

    created: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]
    seed: int
    distinct_images: int
    client_shares_the_cores: bool
    fused_to_steps: dict[str, tuple[float, float, float]]
    """By figure: least, median and most of the rounds' ratios."""
    memory_mib: dict[str, float]
    rounds: dict[str, tuple[LayoutRound, ...]]


class Share(Shown):
    """A ratio of capacities, round by round."""

    mean: float
    least: float
    most: float


class Efficient(Shown):
    """One classifier: what each side holds, and where an image's time goes."""

    batches: dict[str, str]
    share_of_pool: dict[str, Share]
    capacity_per_s: dict[str, tuple[float, ...]]
    one_by_one_ms: dict[str, dict[str, float]]
    processor_ms: dict[str, dict[str, float]]
    distinct_images: int


class EfficiencyResult(Shown):
    """`efficiency.py`: Triton's layouts against a pool of workers without a server."""

    created: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]
    seed: int
    limit_ms: float
    client_shares_the_cores: bool
    targets: dict[str, float]
    classifiers: dict[str, Efficient] = Field(min_length=1)

    @property
    def distinct_images(self) -> int:
        return min(found.distinct_images for found in self.classifiers.values())


class Times(Shown):
    """How many times the capacity of another stack ours is, with two standard errors of the mean to each side."""

    mean: float
    low: float
    high: float


class LightLoad(Shown):
    rate_per_s: float
    over_slipway_fused: dict[str, dict[str, Share]]
    """By stack and percentile: its latency over ours, round by round."""


class PeersResult(Shown):
    """`peers/compare.py`: the same classifier behind other servers."""

    created: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]
    seed: int
    limit_ms: float
    distinct_images: int
    client_shares_the_cores: bool
    backbone: str
    settings: dict[str, str]
    left_out: dict[str, str]
    capacity_per_s: dict[str, tuple[float, ...]]
    times_the_capacity: dict[str, Times] = Field(min_length=1)
    light_load: LightLoad


class Reload(Shown):
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


class Kill(Shown):
    seconds_to_first_right_answer: float | None
    seconds_until_the_last_error: float
    requests: int
    lost: Failures
    longest_wait_s: float


class Afterwards(Shown):
    seconds_to_normal: float | None


class Overloaded(Shown):
    offered_per_s: float
    goodput_share_of_capacity: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    failures: Failures
    generator_late_p99_ms: float
    afterwards: Afterwards


class Ladder(Shown):
    rate_per_s: float
    p99_ms: float


class Overload(Shown):
    """One layout's capacity, and what it does at 3 and 10 times that."""

    capacity_per_s: float
    ladder: tuple[Ladder, ...]
    three: Overloaded = Field(alias="3x")
    ten: Overloaded = Field(alias="10x")


class Company(Shown):
    """One of the classifiers of a repository, asked while the others are idle."""

    seconds_to_ready: float
    memory_mib: float
    p50_ms: float
    p99_ms: float
    failed: Failures
    seconds_from_kill_to_all_answering: float | None = None


class Companies(Shown):
    """One layout."""

    alone: Company = Field(alias="1")
    among: Company = Field(alias="50")
    memory_mib_of_each_additional: float


class Fifty(Shown):
    classifiers: int
    layouts: dict[str, Companies]

    @model_validator(mode="before")
    @classmethod
    def _layouts(cls, data: Any) -> Any:
        """In the file they stand beside the count; in files of before there were several, the only one does."""
        if not isinstance(data, dict):
            return data
        layouts = {name: part for name, part in data.items() if isinstance(part, dict) and "50" in part}
        return {"classifiers": data.get("classifiers"), "layouts": layouts or {"steps": data}}


class RobustnessResult(Shown):
    """`robustness.py`: the parts that were run."""

    created: str
    commit: str | None
    machine: Machine
    versions: dict[str, str]
    seed: int
    distinct_images: int
    client_shares_the_cores: bool
    reload: Reload | None = None
    kills: dict[str, Kill] | None = None
    overload: dict[str, Overload] | None = None
    fifty: Fifty | None = None


class RulePasses(Shown):
    rule: float
    """Share of the runs that pass."""
    seconds: float
    """Until a run ended, on average."""


class JudgedServer(Shown):
    server: str
    utilisation: float | None
    rate_per_s: float
    passes: dict[str, RulePasses]
    """By where the true P99 is."""
    allowed: float | None
    """False passes, as a share of all runs; None where the rule is known to break."""


class VerdictResult(Shown):
    """`verdict.py`: how often the verdict errs on servers that are simulated."""

    runs: int
    blocks: int
    requests_per_block: int
    minutes: float
    seed: int
    servers: tuple[JudgedServer, ...]
    machine: Machine
    versions: dict[str, str]
    commit: str | None
    created: str
