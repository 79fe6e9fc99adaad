"""Plans when a run looks at its results so far, and how often each look may err.

The first look follows the minimum number of blocks. Each further look follows one more block, half as long as all
before it, while time allows: so a run looks at most about ten times, lasts at most half as long again as necessary,
and its blocks outgrow the memory of a busy queue.

The run may pass falsely in `PASS_ERROR` of all cases. Each look spends a share of that budget in proportion to the
requests that it adds to the maximum. All looks together err at most as often as the sum, however dependent they are
(Boole's inequality). Source: K. Lan and D. DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70
(1983), with the spending function "error times information" of K. Kim and D. DeMets, Biometrika 74 (1987).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.benchmark.statistics import PASS_ERROR
from slipway.contract.evidence.latency import GateOptions


@dataclass(frozen=True)
class Look:
    """One look at all blocks so far, and the blocks offered before it."""

    blocks: tuple[int, ...]
    """Number of counted requests of each new block."""
    error: float
    """Probability with which this look may pass a server whose true P99 is on the limit."""
    last: bool


def planned(options: GateOptions, *, rate_per_s: float, minutes: float) -> tuple[Look, ...]:
    """Plan the looks of a run that ends by itself. The minimum number of blocks is offered however long they take."""
    warm_up, least = options.warm_up_requests, options.requests_per_block
    offered = [[least] * options.blocks]
    left = int(60 * minutes * rate_per_s) - options.blocks * (warm_up + least)
    while left >= warm_up + least:
        counted = min(max(least, sum(map(sum, offered)) // 2), left - warm_up)
        if left - warm_up - counted < warm_up + least:
            counted = left - warm_up  # a last block would be too short
        offered.append([counted])
        left -= warm_up + counted
    return _looks(offered)


def single(*, blocks: int, requests: int) -> tuple[Look, ...]:
    """Plan a single look after a fixed number of blocks."""
    return _looks([[requests] * blocks])


def _looks(offered: Sequence[Sequence[int]]) -> tuple[Look, ...]:
    most = sum(map(sum, offered))
    return tuple(
        Look(tuple(blocks), error=PASS_ERROR * sum(blocks) / most, last=blocks is offered[-1]) for blocks in offered
    )
