"""The result file of the study."""

from slipway.contract.evidence.origin import Origin
from slipway.contract.evidence.studies import Failures, Ratio
from slipway.contract.typed_file import Evidence


class GatewayRow(Evidence):
    """The gateway, whole or without some of its parts, against the server itself with the same arrivals."""

    without: tuple[str, ...]
    requests: int
    p50_ms: float
    p99_ms: float
    p50_to_direct: float
    p99_to_direct: float
    p99_to_direct_by_round: tuple[float, ...]
    envoy_ms: float
    """Processor time of Envoy for a request."""
    envoy_waited_ms: float
    """Time for which Envoy's threads could run and had no core, for a request."""
    client_ms: float
    """Processor time of the client for a request."""


class GatewayResult(Evidence, Origin):
    """The study `gateway`: requests through the gateway against requests to the server itself."""

    backbone: str
    protocol: str = "grpc"
    """Protocol of the requests: `grpc` or `http`."""
    client_shares_the_cores: bool
    distinct_images: int
    tap_share: float
    """Share of the requests through the gateway that are tapped for the journal."""
    seed: int
    rounds: int
    search_rounds: int
    requests: int
    start_per_s: float
    limit_ms: float
    load: float
    """Share of the capacity at which both were asked."""
    held_per_s: float | None
    """Rate that the server holds alone; None if it was not searched."""
    rate_per_s: float
    achieved_per_s: dict[str, float]
    p99_ms: dict[str, float]
    p99_ms_by_round: dict[str, tuple[float, ...]]
    gateway_to_direct: Ratio
    """P99 through the gateway relative to that of the server."""
    failed: Failures
    rows: dict[str, GatewayRow]
    """The whole gateway, and what is left without a part and all parts before it."""
    direct_client_ms: float
    histograms: dict[str, str]
    """Latencies of each side in µs (HdrHistogram V2, compressed, base64)."""
