"""The result file of the study, and the model that judges its bars."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from pydantic import model_validator

from slipway.contract.evidence.studies import Part, ServedResult


class Bar(Part):
    """A figure that was measured once or several times, and its limit."""

    values: tuple[float, ...]
    limit: float
    """Largest value that is allowed."""
    unit: str
    met: bool

    @classmethod
    def judged(cls, values: Sequence[float], *, limit: float, unit: str) -> Self:
        return cls(values=tuple(values), limit=limit, unit=unit, met=max(values) <= limit)

    @model_validator(mode="after")
    def _is_judged(self) -> Self:
        if not self.values or self.met != (max(self.values) <= self.limit):
            raise ValueError(f"met is {self.met}, and that is not what {self.values} and limit {self.limit:g} say")
        return self


class Hostile(Part):
    """Requests that must not reach the server."""

    http: int
    grpc: int
    codes: dict[str, int]
    """Number of requests by HTTP status or gRPC status."""
    not_refused: tuple[str, ...]
    """Names of the requests that got neither a 4xx nor an error of gRPC."""
    server_restarts: int


class Journalled(Part):
    """A journal of every answer while something is wrong."""

    answers: int
    failed: int
    rows: int
    dropped: int
    """Requests of one image whose tap the full spool has dropped; they can have no row."""
    parity: dict[str, int]


class LifecycleResult(ServedResult):
    """The study `lifecycle`."""

    bars: dict[str, Bar]
    requests: int
    """Requests of the users during the changes of weight, promotions and rollbacks."""
    undone_s: tuple[float, ...]
    """Seconds of the whole rollback of each promotion, in which the weight is 0 already; no bar."""
    killed_requests: tuple[int, ...]
    """Requests of the users in the nine seconds after each kill of the candidate."""
    killed_failed: tuple[int, ...]
    hostile: Hostile
    journal: dict[str, Journalled]
    memory_mib: dict[str, float]
    prometheus_core_percent: float | None = None
    not_measured: dict[str, str]
    """Reason why a part was left out, by the name of the part."""
    load_1m: float
    """Mean number of processes that needed a core in the minute before the study."""
    seconds: float


@dataclass
class Found:
    """Findings of the parts of the study so far."""

    bars: dict[str, Bar] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    """Other fields of the result."""
    not_measured: dict[str, str] = field(default_factory=dict)

    def judge(self, name: str, values: Sequence[float], *, limit: float, unit: str) -> None:
        """Judge the values of a bar, and print the verdict."""
        self.bars[name] = bar = Bar.judged(values, limit=limit, unit=unit)
        shown = ", ".join(f"{value:.3g}" for value in values)
        print(f"  {name}: {shown} {unit} (limit {limit:g}): {'met' if bar.met else 'MISSED'}", flush=True)

    def leave_out(self, name: str, reason: str) -> None:
        self.not_measured[name] = reason
        print(f"  {name}: not measured: {reason}", flush=True)
