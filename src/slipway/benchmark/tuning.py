"""Finds the `serving` that holds the highest rate within the limit, one setting at a time from the current one.

A grid of all settings takes hours, and most of it is known to be bad. So a challenger differs from the best so far in
one setting, the most useful settings come first, and it is tested at a single rate, the next above the rate of the
best. If it holds that rate, it becomes the best and climbs. A challenger that is no better costs one measurement. The
search ends with the first pass over the settings that finds nothing, or when the budget is spent.

The best of many noisy measurements flatters itself: compare the winner with the start once more, in rounds. One block
at the limit says little, since the measured P99 of a busy queue varies a good deal: every round climbs anew, with newly
drawn arrivals, and a comparison is the mean of the rounds with their spread.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from slipway.contract.evidence.latency import LOWEST_PER_S, STEP
from slipway.contract.evidence.tuning import RateRatio
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving

SettingChanges = dict[str, Any]
"""Keys of `serving`, and under `gpu` those of `serving.gpu`, with their new values."""
Held = Callable[[Serving, int], bool]
"""Returns whether P99 stays within the limit at a rung with this `serving`."""
MOST_THREADS = 64
"""The most instances or threads that `serving` allows."""
STRIDE = 4
"""Rungs per step of the first search, a factor of 1.46 in rate; later climbs go rung by rung."""
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


def ratio(rungs: Sequence[int], to: Sequence[int]) -> RateRatio:
    """Compare two sides round by round; both begin with the same round."""
    steps = [rung - other for rung, other in zip(rungs, to, strict=True)]
    mean = math.fsum(steps) / len(steps)
    deviation = math.sqrt(math.fsum((step - mean) ** 2 for step in steps) / max(1, len(steps) - 1))
    return RateRatio(
        mean=STEP**mean,
        least=STEP ** min(steps),
        most=STEP ** max(steps),
        standard_error=deviation / math.sqrt(len(steps)) if len(steps) > 1 else None,
    )


@dataclass(frozen=True)
class Tuned:
    """The best `serving` found."""

    serving: Serving
    rung: int
    complete: bool
    """Whether the search ended by itself; False where the budget was spent first."""


def settings(lane: LaneName, *, cores: int, max_batch_size: int) -> Iterator[tuple[SettingChanges, ...]]:
    """Yield each setting of the lane with its values to try, the most useful first.

    The order of the cpu lane is that of the gains on two cores (docs/benchmarks.md). That of the gpu lane is a guess.
    """
    cores = min(cores, MOST_THREADS)
    if lane == "gpu":
        for values in _gpu_settings(cores=cores):
            yield tuple({"gpu": change} for change in values)
        return
    yield {"layout": "fused"}, {"layout": "shared_decode"}, {"layout": "steps"}
    yield {"pinned": True}, {"pinned": False}
    yield tuple({"preferred_batch_size": size} for size in (2, 4, 1, 0) if size <= max_batch_size)
    processes = dict.fromkeys([(cores, 1), (max(1, cores // 2), 1), (1, cores)])
    yield tuple({"instances": count, "preprocess_instances": count, "threads": threads} for count, threads in processes)
    yield {"max_queue_delay_us": 0}, {"max_queue_delay_us": 1000}


def _gpu_settings(*, cores: int) -> Iterator[tuple[SettingChanges, ...]]:
    """Return the candidate settings that change neither answers nor limits. The rest of `serving.gpu` is decided, not
    searched: `decode` and `hardware_jpeg` cost isolation, `max_batch_size` is the plan's and the clients' limit, and
    `gpus` is the machine."""
    yield tuple({"engine_instances": instances} for instances in (2, 1, 3, 4))
    decoders = ((1, 4), (1, cores // 2), (1, cores), (2, cores // 2), (4, cores // 4))
    within = dict.fromkeys((instances, max(threads, 2)) for instances, threads in decoders)
    yield tuple({"decode_instances": instances, "decode_threads": threads} for instances, threads in within)
    yield tuple({"max_queue_delay_us": delay_us} for delay_us in (0, 500, 2000))
    yield {"cuda_graphs": True}, {"cuda_graphs": False}


def changed(serving: Serving, change: SettingChanges) -> Serving:
    gpu = serving.gpu.model_copy(update=change.get("gpu", {}))
    return serving.model_copy(update={**change, "gpu": gpu})


def tune(start: Serving, held: Held, *, lane: LaneName, cores: int, rung: int, in_budget: Callable[[], bool]) -> Tuned:
    """Search from `start`, which is first tested at `rung`; `in_budget` is called before each challenger."""
    best = start
    best_rung = _end_of(climb(rung, stride=STRIDE), best, held)
    best_rung = _end_of(climb(best_rung + 1), best, held)
    seen, improved = {start}, True
    while improved:
        improved = False
        for values in settings(lane, cores=cores, max_batch_size=start.max_batch_size):
            for change in values:
                challenger = changed(best, change)
                if challenger in seen:
                    continue
                if not in_budget():
                    return Tuned(best, best_rung, complete=False)
                seen.add(challenger)
                while best_rung < HIGHEST and held(challenger, best_rung + 1):
                    best, best_rung, improved = challenger, best_rung + 1, True
    return Tuned(best, best_rung, complete=True)


def _end_of(climbing: Climb, serving: Serving, held: Held) -> int:
    return in_turns({"": climbing}, lambda _, rung: held(serving, rung))[""]
