"""`Choice`: which precision the cpu lane serves, measured end to end among those that passed the gate."""

from pydantic import Field

from slipway.contract.base import Contract
from slipway.contract.manifest import Sha256
from slipway.contract.spec import Precision

FILE_NAME = "choice.json"


class Candidate(Contract):
    """One engine of the comparison; times are of one image from encoded bytes to the answer."""

    engine: str
    """Folder beside `choice.json`."""
    manifest_sha256: Sha256
    precision: Precision
    verdict: str
    """The accuracy gate's."""
    median_ms: float | None = Field(default=None, gt=0)
    """None for an engine that did not pass, and was not measured."""
    speed_to_fp32: float | None = None
    """Median over rounds of FP32's time over this one's, interleaved: above 1 is faster than FP32."""
    speed_low: float | None = None
    speed_high: float | None = None
    """The spread: the least and the greatest of the rounds' ratios between the 10th and the 90th percentile."""


class Choice(Contract):
    """`choice.json`, beside the engines that were compared."""

    bundle: Sha256
    chosen: str
    """Folder of the engine that is served."""
    reason: str
    candidates: tuple[Candidate, ...]
    rounds: int
    images_per_round: int
    threads: int
    machine: str
    versions: dict[str, str]
