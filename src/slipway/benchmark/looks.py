"""When a run looks at what it has so far, and how often each look may err.

The first look is after the blocks that a run has at least. Each further one is after one more block, half as long as
all before it, as long as the time allows: so a run looks some ten times at most, goes on at most half as long again as
it had to, and its blocks outgrow the memory of a busy queue.

Every look spends of the false passes that the run may cause (`PASS_ERROR`) as large a share as it adds of the requests
that there can be at most. If each look errs that rarely, all together err at most as often as the sum, however alike
they are (Boole's inequality). Source: K. Lan and D. DeMets, Discrete sequential boundaries for clinical trials,
Biometrika 70 (1983), with the spending function "error times information" of K. Kim and D. DeMets, Biometrika 74
(1987).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.benchmark.statistics import PASS_ERROR
from slipway.contract.evidence.latency import GateOptions


@dataclass(frozen=True)
class Look:
    """One look at all blocks so far, and what is offered before it."""

    blocks: tuple[int, ...]
    """The counted requests of each block that is new."""
    error: float
    """How often this look may pass a server whose true P99 is on the limit."""
    last: bool


def planned(options: GateOptions, *, rate_per_s: float, minutes: float) -> tuple[Look, ...]:
    """The looks of a run that ends by itself. The least blocks are offered however long they take."""
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
    """One look, after a fixed number of blocks."""
    return _looks([[requests] * blocks])


def _looks(offered: Sequence[Sequence[int]]) -> tuple[Look, ...]:
    most = sum(map(sum, offered))
    return tuple(
        Look(tuple(blocks), error=PASS_ERROR * sum(blocks) / most, last=blocks is offered[-1]) for blocks in offered
    )
