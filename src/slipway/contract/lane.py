"""`Lane`: what a model repository holds, for whoever serves it; `lane.json` at its root."""

from typing import Literal

from pydantic import Field

from slipway.contract.base import Contract

FILE_NAME = "lane.json"


class Lane(Contract):
    """The lane, its classifiers, and what the server must be told that no `config.pbtxt` can say."""

    lane: Literal["cpu", "gpu"]
    classifiers: dict[str, str]
    """Name to bundle id."""
    shm_default_bytes: int = Field(ge=1 << 20)
    """Shared memory that each Python-backend instance starts with: above its largest usual batch, since growing
    under load costs latency."""
