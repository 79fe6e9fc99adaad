"""`Lane`: what a model repository holds, for whoever serves it; `lane.json` at its root."""

from typing import Literal, TypeAlias

from pydantic import Field

from slipway.contract.base import Contract

FILE_NAME = "lane.json"
LaneName: TypeAlias = Literal["cpu", "gpu"]


class Lane(Contract):
    """The lane, its classifiers, and what the server must be told that no `config.pbtxt` can say."""

    lane: LaneName
    classifiers: dict[str, str]
    """Name to the id of the bundle that answers."""
    kept: dict[str, tuple[str, ...]] = Field(default={})
    """Name to the ids of bundles whose steps are here too, to go back to without building anything."""
    multi: dict[str, tuple[str, ...]] = Field(default={})
    """Ensembles that answer several classifiers from one decode: name to classifiers."""
    shm_default_bytes: int = Field(ge=1 << 20)
    """Shared memory that each Python-backend instance starts with: above its largest usual batch, since growing
    under load costs latency."""
    tensorrt_version_compatible: bool = False
    """Some plan may come from another TensorRT: the server needs
    `--backend-config=tensorrt,version-compatible=true`."""

    @property
    def needs_gpu(self) -> bool:
        return self.lane == "gpu"

    @property
    def ensembles(self) -> dict[str, tuple[str, ...]]:
        """Every model that clients may call, with the classifiers that it answers for."""
        own = {name + suffix: (name,) for name in self.classifiers for suffix in ("", "_full")}
        return {**own, **self.multi}
