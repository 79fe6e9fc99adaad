"""`observe:` of gateway.yaml: the share that is tapped, the spool, and how long the journal keeps what."""

from pydantic import Field

from slipway.contract.typed_file import Contract

SAMPLED_HEADER = "slipway-sampled"
"""Header that the guard puts on a tapped request: the probability with which it was chosen."""
TAP_PREFIX, TAP_SUFFIX = "t_", ".pb"
"""A tap file is `t_<id>.pb`; Envoy draws the id, 64 bits, for each request."""
MOST_ANSWER_BYTES = 16 * 2**20
"""Largest answer that is tapped whole."""
SERVERS = "servers.json"
"""File in the gateway's folder with the servers that it stands before."""


class Observe(Contract):
    """Settings of the gateway's sample and of the journal."""

    share: float = Field(default=0.05, gt=0, le=1)
    """Share of the requests that are tapped, while they are few."""
    per_second: float = Field(default=5.0, gt=0, le=10_000)
    """Requests that are tapped each second at most, on average: a request is chosen with probability
    min(share, per_second ÷ rate)."""
    journal: str | None = None
    """Folder of the journal, relative to the file of settings. The default is `journal` in the gateway's folder."""
    spool: str | None = None
    """Folder of the spool, best a tmpfs of its own. The default is `spool` in the gateway's folder."""
    spool_mib: float = Field(default=64, gt=0, le=1_000_000)
    """Size of the spool, in MiB. Beyond it the gateway removes what was tapped last, and counts it."""
    image_days: float = Field(default=30, gt=0, le=36_500)
    """Days for which images are kept."""
    row_days: float = Field(default=365, gt=0, le=36_500)
    """Days for which rows are kept."""
    metrics_port: int = Field(default=8005, ge=1, le=65535)
    """Port of the collector's GET /metrics on 127.0.0.1."""

    @property
    def spool_bytes(self) -> int:
        return int(self.spool_mib * 2**20)


class ArmPorts(Contract):
    """gRPC ports on 127.0.0.1 of the servers behind a running gateway, by arm."""

    grpc: dict[str, int]
