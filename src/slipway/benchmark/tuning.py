"""Finds the `serving` that holds the highest rate within the limit, one setting at a time from the current one.

A grid of all settings takes hours, and most of it is known to be bad. So a challenger differs from the best so far in
one setting, the most useful settings come first, and it is tested at a single rate, the next above the rate of the
best. If it holds that rate, it becomes the best and climbs. A challenger that is no better costs one measurement. The
search ends with the first pass over the settings that finds nothing, or when the budget is spent.

The best of many noisy measurements flatters itself: compare the winner with the start once more, in rounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slipway.benchmark.tuning_climb import HIGHEST, Climb, climb, in_turns
from slipway.contract.spec import Serving

Changes = dict[str, Any]
Held = Callable[[Serving, int], bool]
"""Returns whether P99 stays within the limit at a rung with this `serving`."""
STRIDE = 4
"""Rungs per step of the first search, a factor of 1.46 in rate; later climbs go rung by rung."""


@dataclass(frozen=True)
class Tuned:
    """The best `serving` found."""

    serving: Serving
    rung: int
    complete: bool
    """Whether the search ended by itself; False where the budget was spent first."""


def settings(*, cores: int, max_batch_size: int) -> Iterator[tuple[Changes, ...]]:
    """Yield each setting's values to try, first those that helped most on two cores (docs/benchmarks.md)."""
    yield {"layout": "fused"}, {"layout": "shared_decode"}, {"layout": "steps"}
    yield {"pinned": True}, {"pinned": False}
    yield tuple({"preferred_batch_size": size} for size in (2, 4, 1, 0) if size <= max_batch_size)
    layouts = dict.fromkeys([(cores, 1), (max(1, cores // 2), 1), (1, cores)])
    yield tuple({"instances": instances, "threads": threads} for instances, threads in layouts)
    yield {"max_queue_delay_us": 0}, {"max_queue_delay_us": 1000}


def tune(start: Serving, held: Held, *, cores: int, rung: int, in_budget: Callable[[], bool]) -> Tuned:
    """Search from `start`, which is first tested at `rung`; `in_budget` is called before each challenger."""
    best = start
    best_rung = _end_of(climb(rung, stride=STRIDE), best, held)
    best_rung = _end_of(climb(best_rung + 1), best, held)
    seen, improved = {start}, True
    while improved:
        improved = False
        for values in settings(cores=cores, max_batch_size=start.max_batch_size):
            for change in values:
                challenger = best.model_copy(update=change)
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
