"""Finds the highest rate that each of several sides holds: they climb one grid of rates in turns.

One block at the limit says little, since the measured P99 of a busy queue varies a good deal. So every round climbs
anew, with newly drawn arrivals, and a comparison is the mean of the rounds with their spread.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from slipway.contract.evidence import rate_grid

STEP, LOWEST_PER_S, rate_at = rate_grid.STEP, rate_grid.LOWEST_PER_S, rate_grid.rate_at
HIGHEST = 64
"""Highest rung, 4,458 requests/s: more than any client on this grid can send."""
NONE = -1
"""Rung of a side that does not hold even the lowest one."""
Climb = Generator[int, bool, int]
"""Yields rungs, receives whether each was held, and returns the highest held one."""


def rung_at(rate_per_s: float) -> int:
    """Return the rung nearest to a rate."""
    return max(0, round(math.log(rate_per_s / LOWEST_PER_S) / math.log(STEP)))


def climb(start: int, *, stride: int = 1) -> Climb:
    """Climb up from `start` while rungs are held, or down until one is."""
    rung = min(max(0, start), HIGHEST)
    if (yield rung):
        while rung + stride <= HIGHEST and (yield rung + stride):
            rung += stride
        return rung
    while rung > 0:
        rung = max(0, rung - stride)
        if (yield rung):
            return rung
    return NONE


def in_turns(climbs: Mapping[str, Climb], held: Callable[[str, int], bool]) -> dict[str, int]:
    """Return the end of each side's climb. Sides take turns rung by rung, so a slow minute of the machine hits all."""
    asked = {side: next(climbing) for side, climbing in climbs.items()}
    ends: dict[str, int] = {}
    while asked:
        for side, rung in list(asked.items()):
            try:
                asked[side] = climbs[side].send(held(side, rung))
            except StopIteration as end:
                ends[side] = end.value
                del asked[side]
    return ends


def climb_rounds(
    starts: Mapping[str, int], held: Callable[[int, str, int], bool], *, rounds: int
) -> Iterator[dict[str, int]]:
    """Return the ends of all climbs, round by round. A round starts at the previous round's end, with another side.

    `held` is called with the number of the round, from 1, the side and the rung.
    """
    sides, at = list(starts), dict(starts)
    for number in range(1, rounds + 1):
        first = number % len(sides)
        at = in_turns({side: climb(at[side]) for side in sides[first:] + sides[:first]}, partial(held, number))
        yield at


@dataclass(frozen=True)
class Ratio:
    """One side's rate over another's in the same rounds."""

    mean: float
    """Geometric."""
    least: float
    most: float
    standard_error: float
    """Standard error of the mean, in rungs; infinite for a single round."""

    @property
    def beyond_spread(self) -> bool:
        """Whether the mean exceeds 1 by more than two standard errors, as about one in twenty equal sides would."""
        return math.log(self.mean, STEP) > 2 * self.standard_error and self.mean > 1


def ratio(rungs: Sequence[int], to: Sequence[int]) -> Ratio:
    """Compare two sides round by round; both begin with the same round."""
    steps = [rung - other for rung, other in zip(rungs, to, strict=True)]
    mean = math.fsum(steps) / len(steps)
    deviation = math.sqrt(math.fsum((step - mean) ** 2 for step in steps) / max(1, len(steps) - 1))
    return Ratio(
        mean=STEP**mean,
        least=STEP ** min(steps),
        most=STEP ** max(steps),
        standard_error=deviation / math.sqrt(len(steps)) if len(steps) > 1 else math.inf,
    )
