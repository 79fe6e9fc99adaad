"""`Lane`: the contents of a model repository, for its server; `lane.json` at the root."""

from typing import Literal, TypeAlias

from pydantic import Field

from slipway.contract.base import Contract

FILE_NAME = "lane.json"
LaneName: TypeAlias = Literal["cpu", "gpu"]


class Lane(Contract):
    """The lane, its classifiers, and the server options that no `config.pbtxt` can hold."""

    lane: LaneName
    classifiers: dict[str, str]
    """Id of the bundle that answers for each classifier."""
    kept: dict[str, tuple[str, ...]] = Field(default={})
    """Ids of each classifier's other bundles in the repository, for a rollback without a build."""
    multi: dict[str, tuple[str, ...]] = Field(default={})
    """Ensembles that answer for several classifiers from one decode, by name."""
    shm_default_bytes: int = Field(ge=1 << 20)
    """Initial shared memory of each Python-backend instance. It exceeds the largest usual batch, since growing under
    load adds latency."""
    tensorrt_version_compatible: bool = False
    """True if a plan may come from another TensorRT version. The server then needs
    `--backend-config=tensorrt,version-compatible=true`."""

    @property
    def needs_gpu(self) -> bool:
        return self.lane == "gpu"

    @property
    def ensembles(self) -> dict[str, tuple[str, ...]]:
        """Every model that clients may call, with the classifiers it answers for."""
        own = {name + suffix: (name,) for name in self.classifiers for suffix in ("", "_full")}
        return {**own, **self.multi}
