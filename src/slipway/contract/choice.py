"""`Choice`: the precision that the cpu lane serves, chosen end to end among the engines that passed the gate."""

from pydantic import Field

from slipway.contract.base import Contract
from slipway.contract.manifest import Sha256
from slipway.contract.spec import Precision

FILE_NAME = "choice.json"


class Candidate(Contract):
    """One engine of the comparison. Times are for one image, from encoded bytes to the answer."""

    engine: str
    """Name of the engine's folder, beside `choice.json`."""
    manifest_sha256: Sha256
    precision: Precision
    verdict: str
    """Verdict of the accuracy gate."""
    median_ms: float | None = Field(default=None, gt=0)
    """Median time of an image; None if the engine did not pass the gate and was not measured."""
    speed_to_fp32: float | None = None
    """Median over the rounds of FP32's time divided by this engine's. Above 1 is faster than FP32."""
    speed_low: float | None = None
    """10th percentile over the rounds of the speed relative to FP32."""
    speed_high: float | None = None
    """90th percentile over the rounds of the speed relative to FP32."""


class Choice(Contract):
    """`choice.json`, beside the compared engines."""

    bundle: Sha256
    chosen: str
    """Name of the folder of the engine to serve."""
    reason: str
    candidates: tuple[Candidate, ...]
    rounds: int
    images_per_round: int
    threads: int
    machine: str
    versions: dict[str, str]
