"""When measured latencies show that P99 is within a limit, when they show that it is not, and when they show neither.

Two facts make this harder than comparing a percentile with a number. A percentile of few requests says little, so the
rule of the MLPerf Inference rules ("early stopping") asks for 459 requests at the very least. And that rule takes
requests as independent, while a queue makes neighbours alike: of simulated M/D/1 queues at 80 % utilisation whose true
P99 sits on the limit, a quarter pass it in each of three blocks of 700 requests. So the requests of all blocks are
counted as the number of independent ones that they are worth. How often that passes what it should not, and how often
it passes what it should, is simulated by benchmarks/verdict.py.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from slipway.contract.errors import MissingDependencyError

try:
    from hdrh.histogram import HdrHistogram
except ImportError:
    raise MissingDependencyError("hdrhistogram", extra="bench") from None

__all__ = [
    "HdrHistogram",
    "Judgement",
    "Latencies",
    "Verdict",
    "histogram_of",
    "independent_requests",
    "judge_block",
    "judge_generator",
    "judge_run",
    "lateness_limit_ms",
    "merged",
    "requests_to_pass",
]

Latencies = npt.NDArray[np.float64]

PERCENTILE = 0.99
CONFIDENCE = 0.99
MIN_ACHIEVED_SHARE = 0.99
"""Of the offered rate; a server that answers slower than it is asked builds up a backlog."""
MAX_LATENESS_SHARE = 0.1
"""Of the limit: what the P99 of the generator's own lateness may be. Lateness is part of every latency, so that it can
only harm the server; up to here all but one request in a hundred are wrong by at most a tenth of what they may take."""
_LONGEST_US = 3_600_000_000
_SIGNIFICANT_FIGURES = 3


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    TOO_FEW = "too few requests to tell"
    LATE = "generator late"
    """The client could not keep to its schedule: nothing is said of the server."""


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reason: str


def probability_at_most(over_limit: int, *, requests: int) -> float:
    """P(at most `over_limit` of `requests` independent requests are over the limit) when the limit is the true P99."""
    log_n_factorial = math.lgamma(requests + 1)

    def log_choose(k: int) -> float:
        return log_n_factorial - math.lgamma(k + 1) - math.lgamma(requests - k + 1)

    log_over, log_within = math.log1p(-PERCENTILE), math.log(PERCENTILE)
    return math.fsum(
        math.exp(log_choose(k) + k * log_over + (requests - k) * log_within)
        for k in range(min(over_limit, requests) + 1)
    )


@lru_cache(maxsize=4096)
def requests_to_pass(over_limit: int) -> int:
    """The smallest number of independent requests that shows P99 within the limit, `over_limit` of them over it.

    Source: MLPerf Inference rules, early stopping, with p = 0.99 and 99 % confidence: the smallest n for which
    so few over-limit requests would happen at most 1 % of the time if the true P99 were on the limit.
    """

    def shown(requests: int) -> bool:
        return probability_at_most(over_limit, requests=requests) <= 1 - CONFIDENCE

    # Each further one over the limit costs fewer requests than the first, which costs 459.
    candidates = range(over_limit + 1, 460 * (over_limit + 1))
    return candidates[bisect.bisect_left(candidates, True, key=shown)]


MIN_REQUESTS = requests_to_pass(0)
"""459: fewer requests can prove nothing."""


def judge_block(over_limit: int, *, requests: int) -> Judgement:
    """The verdict on one block, its requests taken as independent.

    Pass: P99 is shown to be within the limit. Fail: the measured P99 is over it. Between the two, or with fewer than
    459 requests: too few to tell.
    """
    counted = f"{over_limit:,} of {requests:,} requests over the limit"
    if requests < MIN_REQUESTS:
        return Judgement(Verdict.TOO_FEW, f"{counted}; fewer than {MIN_REQUESTS} requests can prove nothing")
    if over_limit > (1 - PERCENTILE) * requests:
        return Judgement(Verdict.FAIL, f"{counted}: more than 1 %")
    needed = requests_to_pass(over_limit)
    if requests < needed:
        return Judgement(Verdict.TOO_FEW, f"{counted}; that many are allowed from {needed:,} requests on")
    return Judgement(Verdict.PASS, counted)


def lateness_limit_ms(limit_ms: float) -> float:
    """What the P99 of the schedule errors may be where `limit_ms` is the limit on P99."""
    return MAX_LATENESS_SHARE * limit_ms


def judge_generator(schedule_errors_ms: Latencies, *, limit_ms: float) -> Judgement | None:
    """LATE where the generator's lateness would be taken for the server's latency; None where it is small."""
    late_ms = float(np.quantile(schedule_errors_ms, PERCENTILE))
    if late_ms <= lateness_limit_ms(limit_ms):
        return None
    return Judgement(
        Verdict.LATE,
        f"requests left {late_ms:.1f} ms late at their P99, over {MAX_LATENESS_SHARE:.0%} of the limit: the latencies "
        "are not the server's alone; give the client cores of its own, more generators, or a lower rate",
    )


def judge_run(
    blocks_ms: Sequence[Latencies], *, limit_ms: float, offered_per_s: float, achieved_per_s: float
) -> Judgement:
    """The verdict on P99 ≤ `limit_ms` from the latencies of independent blocks, in the order of their requests.

    Fails when the measured P99 of a block is over the limit or the achieved rate is below 99 % of the offered one.
    Passes when all blocks together pass the rule with their requests counted as `independent_requests` says. Else, or
    with a block of fewer than 459 requests: too few to tell.
    """
    judgements = [judge_block(int((block > limit_ms).sum()), requests=block.size) for block in blocks_ms]
    for judgement, block in zip(judgements, blocks_ms, strict=True):
        if block.size < MIN_REQUESTS:
            return judgement
    for number, judgement in enumerate(judgements, start=1):
        if judgement.verdict is Verdict.FAIL:
            return Judgement(Verdict.FAIL, f"block {number}: {judgement.reason}")
    if achieved_per_s < MIN_ACHIEVED_SHARE * offered_per_s:
        share = f"{achieved_per_s:.1f} of {offered_per_s:.1f} requests/s achieved"
        return Judgement(Verdict.FAIL, f"{share}: under {MIN_ACHIEVED_SHARE:.0%} of the offered rate")
    return _judge_together(blocks_ms, limit_ms=limit_ms)


def _judge_together(blocks_ms: Sequence[Latencies], *, limit_ms: float) -> Judgement:
    requests = sum(block.size for block in blocks_ms)
    over_limit = sum(int((block > limit_ms).sum()) for block in blocks_ms)
    independent = independent_requests(blocks_ms, limit_ms=limit_ms)
    needed = requests_to_pass(math.ceil(over_limit * independent / requests))
    counted = f"{over_limit:,} of {requests:,} requests over the limit in {len(blocks_ms)} blocks"
    if independent < needed:
        per_block = math.ceil(needed * requests / independent / len(blocks_ms) / 100) * 100
        return Judgement(
            Verdict.TOO_FEW,
            f"{counted}, worth {independent:,} independent ones (a queue makes neighbours alike) where {needed:,} are "
            f"needed; about {per_block:,} requests a block would do",
        )
    return Judgement(Verdict.PASS, f"{counted}, worth {independent:,} independent ones; {needed:,} are enough")


def independent_requests(blocks_ms: Sequence[Latencies], *, limit_ms: float) -> int:
    """How many independent requests tell as much about the limit as these do, which came in this order.

    Their number divided by the integrated autocorrelation time of "slow", cut off at five times itself.
    Source: A. Sokal, Monte Carlo Methods in Statistical Mechanics (1997), section 3.

    Slow is above the run's own P90, since there may be nothing over the limit to learn from, and above a quarter of the
    limit, since what a noisy machine does far below the limit tells nothing about it. A queue whose P99 is on the limit
    does reach up to there: its tail is near to exponential, so a third of its requests are over the quarter.
    """
    together = np.concatenate(blocks_ms)
    slow_ms = max(float(np.quantile(together, 0.9)), limit_ms / 4)
    share_slow = float((together > slow_ms).mean())
    if share_slow == 0:
        return together.size
    longest = max(block.size for block in blocks_ms)
    covariance = np.zeros(longest)
    for block in blocks_ms:
        spectrum = np.fft.rfft((block > slow_ms) - share_slow, 2 * longest)  # padded, so that it does not wrap
        covariance += np.fft.irfft(np.abs(spectrum) ** 2)[:longest]
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    windows = np.flatnonzero(np.arange(longest) >= 5 * times)
    time = times[windows[0]] if windows.size else times[-1]
    return int(together.size / max(1.0, time))


def histogram_of(latencies_ms: Latencies) -> HdrHistogram:
    """A histogram of whole microseconds, 1 µs to 1 hour, to three significant figures."""
    histogram = HdrHistogram(1, _LONGEST_US, _SIGNIFICANT_FIGURES)
    for latency_us in np.clip(np.rint(latencies_ms * 1000), 1, _LONGEST_US).astype(int).tolist():
        histogram.record_value(latency_us)
    return histogram


def merged(histograms: Sequence[HdrHistogram]) -> HdrHistogram:
    """All requests in one histogram, for the percentiles of several blocks: percentiles are never averaged."""
    together = HdrHistogram(1, _LONGEST_US, _SIGNIFICANT_FIGURES)
    for histogram in histograms:
        together.add(histogram)
    return together
