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
    """Name to bundle id."""
    shm_default_bytes: int = Field(ge=1 << 20)
    """Shared memory that each Python-backend instance starts with: above its largest usual batch, since growing
    under load costs latency."""
    tensorrt_version_compatible: bool = False
    """Some plan may come from another TensorRT: the server needs
    `--backend-config=tensorrt,version-compatible=true`."""
