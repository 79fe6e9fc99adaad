"""`Choice`: the precision that a lane serves, the fastest measured one among the engines that passed the gate."""

from pydantic import Field

from slipway.contract.card import Card
from slipway.contract.manifest import Sha256
from slipway.contract.spec import Precision
from slipway.contract.typed_file import Contract

FILE_NAME = "choice.json"


def choice_name(compute_capability: str | None) -> str:
    """File name of a choice: `choice-sm90.json` between plans for compute capability 9.0, `choice.json` without one."""
    return FILE_NAME if compute_capability is None else f"choice-sm{compute_capability.replace('.', '')}.json"


class Contender(Contract):
    """One engine of the comparison. Its time is that of one image, from encoded bytes to the answer; of a plan, that
    of two calls, with one image and with the largest batch."""

    engine: str
    """Name of the engine's folder, beside `choice.json`."""
    manifest_sha256: Sha256
    precision: Precision
    verdict: str
    """Verdict of the accuracy gate."""
    median_ms: float | None = Field(default=None, gt=0)
    """Median time; None if the engine did not pass the gate and was not measured."""
    speed_to_fp32: float | None = None
    """Median over the rounds of FP32's time divided by this engine's. Above 1 is faster than FP32."""
    speed_low: float | None = None
    """10th percentile over the rounds of the speed relative to FP32."""
    speed_high: float | None = None
    """90th percentile over the rounds of the speed relative to FP32."""


class Choice(Contract):
    """`choice.json`, or `choice-sm90.json` between plans, beside the compared engines."""

    bundle: Sha256
    chosen: str
    """Name of the folder of the engine to serve."""
    reason: str
    candidates: tuple[Contender, ...]
    rounds: int
    images_per_round: int
    threads: int
    machine: str
    card: Card | None = None
    """The GPU that the plans were measured on; None for the cpu lane."""
    versions: dict[str, str]
