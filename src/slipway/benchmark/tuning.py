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
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving

Changes = dict[str, Any]
"""Keys of `serving`, and under `gpu` those of `serving.gpu`, with their new values."""
Held = Callable[[Serving, int], bool]
"""Returns whether P99 stays within the limit at a rung with this `serving`."""
MOST_THREADS = 64
"""The most instances or threads that `serving` allows."""
STRIDE = 4
"""Rungs per step of the first search, a factor of 1.46 in rate; later climbs go rung by rung."""


@dataclass(frozen=True)
class Tuned:
    """The best `serving` found."""

    serving: Serving
    rung: int
    complete: bool
    """Whether the search ended by itself; False where the budget was spent first."""


def settings(lane: LaneName, *, cores: int, max_batch_size: int) -> Iterator[tuple[Changes, ...]]:
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


def _gpu_settings(*, cores: int) -> Iterator[tuple[Changes, ...]]:
    """Those that change no answer and no limit. The rest of `serving.gpu` is decided, not searched: `decode` and
    `hardware_jpeg` cost isolation, `max_batch_size` is the plan's and the clients' limit, and `gpus` is the machine."""
    yield tuple({"engine_instances": instances} for instances in (2, 1, 3, 4))
    decoders = ((1, 4), (1, cores // 2), (1, cores), (2, cores // 2), (4, cores // 4))
    within = dict.fromkeys((instances, max(threads, 2)) for instances, threads in decoders)
    yield tuple({"decode_instances": instances, "decode_threads": threads} for instances, threads in within)
    yield tuple({"max_queue_delay_us": delay_us} for delay_us in (0, 500, 2000))
    yield {"cuda_graphs": True}, {"cuda_graphs": False}


def changed(serving: Serving, change: Changes) -> Serving:
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
