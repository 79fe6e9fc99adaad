"""The result file of the study."""

from pydantic import Field

from slipway.contract.evidence.studies import ClimbBlock, Part, ServedResult, Share, Tail


class Alone(Part):
    """Photographs of one kind, sent by one client one after the other to a server on one core."""

    requests: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class PhotographsResult(ServedResult):
    """The study `photographs`."""

    limit_ms: float
    backbone: str
    serving: str
    photograph_bytes: dict[str, float]
    capacity_per_s: dict[str, tuple[float, ...]]
    """Highest rate of each kind of traffic, by round."""
    share_of_small: dict[str, Share]
    """Capacity relative to that of small images alone."""
    target: float
    """Least share of the rate of small images that `mixed` should hold."""
    alone: dict[str, Alone]
    tail: dict[str, Tail] = Field(default={})
    blocks: tuple[ClimbBlock, ...]
