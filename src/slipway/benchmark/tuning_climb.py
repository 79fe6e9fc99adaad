"""The highest rate that each of several sides holds, on one grid of rates: they climb it in turns, and are compared.

One block at the limit says little, since what a busy queue shows of its P99 varies a good deal. So every round climbs
anew, on newly drawn arrivals, and a comparison is the mean of the rounds with their spread.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

STEP = 1.1
"""From one rung of the grid to the next: 10 % tell two sides apart in one round, less does in the mean of some."""
LOWEST_PER_S = 10.0
"""Rung 0; below it there is nothing to compare."""
HIGHEST = 64
"""4,458 requests/s: more than any client on this grid sends. A side that holds it is climbing for nothing."""
NONE = -1
"""The rung of a side that does not hold even the lowest."""
Climb = Generator[int, bool, int]
"""Asks about rungs, is told of each whether it was held, and returns the highest that was."""


def rate_at(rung: int) -> float:
    """Requests per second."""
    return LOWEST_PER_S * STEP**rung


def rung_at(rate_per_s: float) -> int:
    """The nearest one."""
    return max(0, round(math.log(rate_per_s / LOWEST_PER_S) / math.log(STEP)))


def climb(start: int, *, stride: int = 1) -> Climb:
    """Up from `start` while rungs are held, or down until one is."""
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
    """Where each side's climb ends. One rung each in turn, so that a slow minute of the machine meets them all."""
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
    """Where each side's climb ends, round by round. A round begins where the one before ended, and with another side.

    `held` is asked with the number of the round, from 1, the side and the rung.
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
    """Of the mean, in rungs; infinite for a single round."""

    @property
    def beyond_spread(self) -> bool:
        """Whether the mean is over 1 by more than two standard errors: of equal sides about one in twenty would be."""
        return math.log(self.mean, STEP) > 2 * self.standard_error and self.mean > 1


def ratio(rungs: Sequence[int], to: Sequence[int]) -> Ratio:
    """Round by round; both begin with the same round."""
    steps = [rung - other for rung, other in zip(rungs, to, strict=True)]
    mean = math.fsum(steps) / len(steps)
    deviation = math.sqrt(math.fsum((step - mean) ** 2 for step in steps) / max(1, len(steps) - 1))
    return Ratio(
        mean=STEP**mean,
        least=STEP ** min(steps),
        most=STEP ** max(steps),
        standard_error=deviation / math.sqrt(len(steps)) if len(steps) > 1 else math.inf,
    )
