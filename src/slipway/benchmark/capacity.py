"""Finds the highest Poisson rate at which P99 stays within the limit, as an interval between two tested rates.

1. Search, one block per rate: the rate is doubled or halved until one is within the limit and one is not; then their
   geometric mean is tried until they are at most 10 % apart. A rate counts as within unless its block fails: one block
   can seldom show more, so after "too few requests to tell" the search goes up.
2. Confirmation, newly drawn: the highest rate within the limit gets a full verdict of the gate. If it does not pass,
   lower rates get one, first 10 % lower and then in growing steps: 1/1.1, 1/1.3 and at least half of it. Each of these
   four may take a quarter of the gate's time, so together they take no longer than one gate.

The interval goes from the highest rate that passed to the lowest rate above it that did not. So a capacity is a rate
that passed the gate; the search only says where to look. With at most four verdicts, a false pass is at most four
times as likely as with one. A full verdict of "too few requests to tell" moves the interval down although the server
might hold that rate: more time would tell. Where a late generator sets the upper end, the client was the limit, not
the server.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from slipway.benchmark.gate import measure, meet, provenance
from slipway.benchmark.looks import Look, planned, single
from slipway.benchmark.statistics import MIN_REQUESTS
from slipway.contract.evidence.latency import CapacityResult, GateOptions, LatencyVerdict, Rung
from slipway.contract.typed_file import Contract
from slipway.errors import SpecError

STEP = 2.0
RESOLUTION = 1.1
"""Ratio of the interval's ends in an undisturbed search."""
MAX_SEARCHES = 12
SEARCH_BUDGET_S = 600.0
"""Longest duration of the search; a rate whose schedule exceeds it is skipped, except the first."""
MAX_CONFIRMATIONS = 4
_OVER = (LatencyVerdict.FAIL, LatencyVerdict.LATE)


def find_capacity(options: GateOptions, *, on_rung: Callable[[Rung], object] = lambda _: None) -> CapacityResult:
    """Search from `options.rate_per_s` on, and confirm. `on_rung` is called with every tested rate.

    Raises:
        SpecError: the blocks are too short to show anything.
        DataError, ServingError, GateError: as `run_gate` does.
    """
    if options.requests_per_block < MIN_REQUESTS:
        raise SpecError(f"requests_per_block {options.requests_per_block} proves nothing; give {MIN_REQUESTS} or more")
    subject = asyncio.run(meet(options))
    rungs: list[Rung] = []

    def verdict_at(rate_per_s: float, looks: Sequence[Look], *, confirms: bool) -> LatencyVerdict:
        drawn = sum(len(rung.blocks) for rung in rungs)
        found = measure(options, subject, rate_per_s=rate_per_s, looks=looks, first_block=drawn)
        rungs.append(Rung(**found.fields(), rate_per_s=rate_per_s, confirms=confirms))
        on_rung(rungs[-1])
        return found.verdict

    def confirmed(rate_per_s: float) -> LatencyVerdict:
        looks = planned(options, rate_per_s=rate_per_s, minutes=options.minutes / MAX_CONFIRMATIONS)
        return verdict_at(rate_per_s, looks, confirms=True)

    one_block = single(blocks=1, requests=options.requests_per_block)
    within_per_s = search(
        lambda rate_per_s: verdict_at(rate_per_s, one_block, confirms=False),
        start_per_s=options.rate_per_s,
        requests=options.warm_up_requests + options.requests_per_block,
    )
    if within_per_s:
        confirm(confirmed, rate_per_s=within_per_s)
    return _judged(rungs, provenance(options, subject))


def search(verdict_at: Callable[[float], LatencyVerdict], *, start_per_s: float, requests: int) -> float | None:
    """Return the highest rate within the limit, sending `requests` at each rate; None where none was."""
    within = over = None
    rate_per_s, spent_s = start_per_s, 0.0
    for number in range(MAX_SEARCHES):
        spent_s += requests / rate_per_s
        if number and spent_s > SEARCH_BUDGET_S:
            break
        if verdict_at(rate_per_s) in _OVER:
            over = rate_per_s
        else:
            within = rate_per_s
        if within is None:
            rate_per_s /= STEP
        elif over is None:
            rate_per_s *= STEP
        elif over <= RESOLUTION * within:
            break
        else:
            rate_per_s = math.sqrt(within * over)
    return within


def confirm(verdict_at: Callable[[float], LatencyVerdict], *, rate_per_s: float) -> None:
    """Ask for the full verdict on a rate, and on lower rates until one passes."""
    for number in range(MAX_CONFIRMATIONS):
        if verdict_at(rate_per_s) is LatencyVerdict.PASS:
            return
        rate_per_s /= RESOLUTION ** (2**number)  # the search can end far too high if the machine slowed down since


def _judged(rungs: Sequence[Rung], origin: Contract) -> CapacityResult:
    """Return the verdict and the interval's ends. A single block that cannot tell is neither end."""
    last = rungs[-1]
    passed = last if last.confirms and last.verdict is LatencyVerdict.PASS else None
    without = [
        rung
        for rung in rungs
        if (rung.verdict in _OVER or (rung.confirms and rung is not passed))
        and not (passed and rung.rate_per_s <= passed.rate_per_s)
    ]
    lowest = min(without, key=lambda rung: rung.rate_per_s, default=None)
    return CapacityResult(
        verdict=last.verdict,
        reason=(
            f"{lowest.rate_per_s:.1f} requests/s did not pass ({lowest.verdict}): {lowest.reason}"
            if lowest
            else "no higher rate was tested"
        ),
        passed_per_s=passed.rate_per_s if passed else None,
        not_passed_per_s=lowest.rate_per_s if lowest else None,
        rungs=tuple(rungs),
        **origin.fields(),
    )
