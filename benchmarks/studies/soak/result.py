"""The result file of the study."""

from typing import Literal

from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Evidence


class Options(Evidence):
    images: int
    """Number of damaged images."""
    seed: int
    concurrency: int


class Memory(Evidence):
    """Memory of an idle server."""

    rss_mib: dict[str, float]
    """Resident memory of the server and of each stub."""
    shared_mib: float
    """Shared memory that they hold."""


class Sample(Memory):
    images: int
    """Damaged images sent so far."""
    seconds: float


class Repository(Evidence):
    name: str
    manifest_sha256: str


class SoakResult(Evidence, Origin):
    """The study `soak`."""

    verdict: Literal["pass", "fail"]
    reasons: tuple[str, ...]
    """Reasons against a pass."""
    options: Options
    good_answers: int
    damaged_by_status: dict[int, int]
    """Number of answers to damaged images, by STATUS."""
    series: tuple[Sample, ...]
    """Memory after each part of the images."""
    repository: Repository
