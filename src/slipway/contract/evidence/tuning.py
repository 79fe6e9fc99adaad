"""`TuningResult`: the evidence of `slipway tune`, with every measurement of its search and of its comparison."""

import math

from pydantic import JsonValue

from slipway.contract.card import Card
from slipway.contract.evidence.latency import STEP, GateOptions, Measured
from slipway.contract.evidence.origin import Origin
from slipway.contract.serving import Serving
from slipway.contract.typed_file import Contract


class RateRatio(Contract):
    """One side's rate over another's in the same rounds."""

    mean: float
    """Geometric mean, over the rounds, of one side's rate divided by the other's."""
    least: float
    most: float
    standard_error: float | None
    """Standard error of the mean, in rungs; None for a single round."""

    @property
    def beyond_spread(self) -> bool:
        """Whether the mean exceeds 1 by more than two standard errors, as about one in twenty equal sides would."""
        error = self.standard_error
        return error is not None and self.mean > 1 and math.log(self.mean, STEP) > 2 * error


class TriedRate(Measured):
    """Results of some settings at one rate."""

    serving: Serving
    rate_per_s: float


class NotStarted(Contract):
    """Settings with which no server started, at the rate that was to be tried."""

    serving: Serving
    rate_per_s: float
    error: str


class TuningSearch(Contract):
    """The search before the comparison."""

    runs: int
    """Number of measurements."""
    complete: bool
    """Whether the search ended by itself; False where the budget was spent first."""
    best: Serving


class TunedGpu(Contract):
    """The GPU of a gpu lane, and the libraries of its server; None for one that is not there."""

    card: Card
    release: str | None
    tensorrt: str | None
    dali: str | None
    nvimgcodec: str | None


class TuningResult(Origin):
    """Complete result of one tuning."""

    client_shares_the_cores: bool = True
    better: bool
    """Whether the best of the search was better than the start beyond the spread."""
    search: TuningSearch
    after_to_before: RateRatio | None
    """The rate of the best over that of the start; None if the search found nothing better."""
    rungs: dict[str, tuple[int, ...]]
    """The highest rung that each side, `before` and `after`, held in each round of the comparison."""
    options: GateOptions
    measurements: tuple[TriedRate | NotStarted, ...]
    """Measurements of the search, then of the comparison, in order."""
    start: Serving
    chosen: Serving
    changes: dict[str, JsonValue]
    """The keys of `serving` that are to be written into the fleet file."""
    gpu: TunedGpu | None = None
