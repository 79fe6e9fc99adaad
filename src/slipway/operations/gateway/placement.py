"""The locations of Envoy's servers and secrets: all on this machine, or in a cluster."""

from dataclasses import dataclass
from pathlib import Path

from slipway.serving.ports import HOST


@dataclass(frozen=True)
class Mounted:
    """Files that a cluster mounts into the gateway's container. Envoy takes up what is changed in them."""

    routes: Path
    """Folder of `routes.yaml`."""
    keys: Path
    """Folder of `keys.yaml`, with the keys of the teams; of a Secret."""
    certificate: Path
    """File that names certificate and private key for Envoy."""


@dataclass(frozen=True)
class Placement:
    """Names and paths of the servers and files around a gateway."""

    metrics: str = HOST
    """Address of the metrics' port."""
    stable: str = HOST
    """Address of the stable server, or the name of its machines."""
    candidate: str = HOST
    ready: str = "/ready"
    """Path that the supervisor of a server is asked whether the server gets requests."""
    mounted: Mounted | None = None
    """Files with routes and secrets; without them, routes are in the gateway's folder, and secrets in the
    configuration, which only its owner may read."""

    @property
    def by_name(self) -> bool:
        """Whether the servers are named, and may be several machines each."""
        return self.stable != HOST


HERE = Placement()
"""Everything on this machine."""
