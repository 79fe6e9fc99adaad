"""Decides whether measured latencies show P99 within a limit, over it, or neither.

Three facts make this harder than comparing a percentile with a number. First, a percentile of few requests says little,
so the MLPerf Inference rules ("early stopping") ask for at least 459 requests. Second, those rules assume independent
requests, while a queue makes neighbours alike: of simulated M/D/1 queues at 80 % utilisation whose true P99 is on the
limit, a quarter pass in each of three blocks of 700 requests. So the verdict uses the effective number of
independent requests of all blocks. Third, a rule that is tried again and again passes in the end, so all looks of
a run share the error of a single look (slipway.benchmark.looks). python -m benchmarks.studies.verdict simulates how
often the verdict passes falsely and rightly.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from slipway.contract.evidence.latency import Latency, LatencyVerdict
from slipway.errors import requiring

with requiring("hdrhistogram", extra="bench"):
    from hdrh.histogram import HdrHistogram

__all__ = [
    "HdrHistogram",
    "Judgement",
    "Latencies",
    "LimitEvidence",
    "histogram_of",
    "independent_requests",
    "judge_block",
    "judge_generator",
    "judge_run",
    "latency_of",
    "lateness_limit_ms",
    "merged",
    "requests_to_pass",
    "weigh",
]

Latencies = npt.NDArray[np.float64]

PERCENTILE = 0.99
CONFIDENCE = 0.99
PASS_ERROR = 0.003
"""Share of false passes that all looks of a run may cause together. The number of independent requests is itself an
estimate, which causes up to twice as many again (benchmarks/results/verdict.json): 99 % confidence remains."""
SLOW_QUANTILES = (0.95, 0.99)
SLOW_SHARE_OF_LIMIT = 0.25
"""Percentiles above which a request is slow when neighbours are compared: see `independent_requests`."""
MIN_ACHIEVED_SHARE = 0.99
"""Smallest share of the offered rate that must be achieved; a slower server builds up a backlog."""
MAX_LATENESS_SHARE = 0.1
"""Largest P99 of the generator's own lateness, as a share of the limit. Lateness is part of every latency, so it can
only harm the server; within this share, 99 % of requests are wrong by at most a tenth of the limit."""
_LONGEST_US = 3_600_000_000
_SIGNIFICANT_FIGURES = 3


@dataclass(frozen=True)
class LimitEvidence:
    """The evidence of all requests so far about the limit."""

    requests: int
    over_limit: int
    independent: int
    """Effective number of independent requests among them."""
    needed: int
    """Number of independent requests that would pass with the same number over the limit."""


@dataclass(frozen=True)
class Judgement:
    verdict: LatencyVerdict
    reason: str


def probability_at_most(over_limit: int, *, requests: int) -> float:
    """Return P(at most `over_limit` of `requests` independent requests are over the limit) with the true P99 on it."""
    return float(bdtr(over_limit, requests, 1 - PERCENTILE)) if 0 <= over_limit < requests else float(over_limit >= 0)


@lru_cache(maxsize=4096)
def requests_to_pass(over_limit: int, *, error: float = 1 - CONFIDENCE) -> int:
    """Return the fewest independent requests that show P99 within the limit with `over_limit` of them over it.

    Source: MLPerf Inference rules, early stopping, with p = 0.99 and 99 % confidence: the smallest n for which so few
    over-limit requests would occur in at most `error` of all cases if the true P99 were on the limit.
    """

    def shown(requests: int) -> bool:
        return probability_at_most(over_limit, requests=requests) <= error

    # Each further request over the limit costs fewer requests than the first, which costs 459 at 1 %.
    first = math.ceil(math.log(error) / math.log(PERCENTILE))
    candidates = range(over_limit + 1, (first + 1) * (over_limit + 1))
    return candidates[bisect.bisect_left(candidates, True, key=shown)]


MIN_REQUESTS = requests_to_pass(0)
"""Fewest requests that can prove anything: 459."""


def judge_block(over_limit: int, *, requests: int) -> Judgement:
    """Judge one block, with its requests taken as independent.

    Pass: P99 is shown to be within the limit. Fail: the measured P99 is over it. Otherwise, or with fewer than 459
    requests: too few to tell.
    """
    counted = f"{over_limit:,} of {requests:,} requests over the limit"
    if requests < MIN_REQUESTS:
        return Judgement(LatencyVerdict.TOO_FEW, f"{counted}; fewer than {MIN_REQUESTS} requests can prove nothing")
    if over_limit > (1 - PERCENTILE) * requests:
        return Judgement(LatencyVerdict.FAIL, f"{counted}: more than 1 %")
    needed = requests_to_pass(over_limit)
    if requests < needed:
        return Judgement(
            LatencyVerdict.TOO_FEW, f"{counted}; so many over it are allowed only from {needed:,} requests on"
        )
    return Judgement(LatencyVerdict.PASS, counted)


def lateness_limit_ms(limit_ms: float) -> float:
    """Return the limit on the P99 of the schedule errors where `limit_ms` is the limit on P99."""
    return MAX_LATENESS_SHARE * limit_ms


def judge_generator(schedule_errors_ms: Latencies, *, limit_ms: float) -> Judgement | None:
    """Return LATE where the generator's lateness would count as the server's latency; None where it is small."""
    late_ms = float(np.quantile(schedule_errors_ms, PERCENTILE))
    if late_ms <= lateness_limit_ms(limit_ms):
        return None
    return Judgement(
        LatencyVerdict.LATE,
        f"requests left {late_ms:.1f} ms late at their P99, over {MAX_LATENESS_SHARE:.0%} of the limit: the latencies "
        "are not the server's alone; give the client its own cores, more generators, or a lower rate",
    )


def judge_run(evidence: LimitEvidence, *, last: bool, offered_per_s: float, achieved_per_s: float) -> Judgement:
    """Judge P99 at one look at the blocks so far.

    Fails if the achieved rate is below 99 % of the offered one, if P99 is shown to be over the limit (99 % confidence),
    or if the measured P99 is over it at the last look. Passes if P99 is shown to be within the limit. Otherwise there
    are too few requests to tell.
    """
    if achieved_per_s < MIN_ACHIEVED_SHARE * offered_per_s:
        share = f"{achieved_per_s:.1f} of {offered_per_s:.1f} requests/s achieved"
        return Judgement(LatencyVerdict.FAIL, f"{share}: under {MIN_ACHIEVED_SHARE:.0%} of the offered rate")
    counted = f"{evidence.over_limit:,} of {evidence.requests:,} requests over the limit"
    independent = f"{evidence.independent:,} effectively independent requests"
    if evidence.over_limit > (1 - PERCENTILE) * evidence.requests:
        if last or _shown_over(evidence):
            return Judgement(LatencyVerdict.FAIL, f"{counted}: more than 1 %")
        return Judgement(LatencyVerdict.TOO_FEW, f"{counted}: more than 1 %, which may be chance ({independent})")
    if evidence.independent >= evidence.needed:
        return Judgement(LatencyVerdict.PASS, f"{counted}; {independent}, and {evidence.needed:,} are enough")
    would_do = math.ceil(evidence.needed * evidence.requests / evidence.independent / 100) * 100
    return Judgement(
        LatencyVerdict.TOO_FEW,
        f"{counted}; {independent} (a queue makes neighbours alike), and {evidence.needed:,} are needed: about "
        f"{would_do:,} requests would do",
    )


def _shown_over(evidence: LimitEvidence) -> bool:
    over_limit = evidence.over_limit * evidence.independent // evidence.requests
    return 1 - probability_at_most(over_limit - 1, requests=evidence.independent) <= 1 - CONFIDENCE


def weigh(blocks_ms: Sequence[Latencies], *, limit_ms: float, error: float) -> LimitEvidence:
    """Weigh independent blocks, each in the order of its requests, for a look that may err with probability `error`."""
    requests = sum(block.size for block in blocks_ms)
    over_limit = sum(int((block > limit_ms).sum()) for block in blocks_ms)
    independent = independent_requests(blocks_ms, limit_ms=limit_ms)
    needed = requests_to_pass(math.ceil(over_limit * independent / requests), error=error)
    return LimitEvidence(requests, over_limit, independent, needed)


def independent_requests(blocks_ms: Sequence[Latencies], *, limit_ms: float) -> int:
    """Return the number of independent requests that tell as much about the limit as these, in their order.

    It is their number divided by the integrated autocorrelation time of "slow", cut off at five times itself.
    Source: A. Sokal, Monte Carlo Methods in Statistical Mechanics (1997), section 3.

    A slow request is above the run's own P95, since there may be nothing over the limit to learn from, or above its
    P99, since stalls may be too few to show at P95: the longer time counts. It is also above a quarter of the limit,
    since noise far below the limit says nothing about it. A queue whose P99 is on the limit does reach a quarter of it:
    its tail is nearly exponential, so a third of its requests are above that. (Half of the limit would be too high: one
    in five runs of an M/D/1 queue at 95 % never gets there in its first blocks.)
    """
    together = np.concatenate(blocks_ms)
    quantiles_ms = np.quantile(together, SLOW_QUANTILES)
    slow_ms = set(np.maximum(quantiles_ms, SLOW_SHARE_OF_LIMIT * limit_ms).tolist())
    time = max(_autocorrelation_time(blocks_ms, slow_ms=level_ms) for level_ms in slow_ms)
    return max(1, int(together.size / time))


def _autocorrelation_time(blocks_ms: Sequence[Latencies], *, slow_ms: float) -> float:
    """Return the autocorrelation time of "slower than `slow_ms`" in requests; at least 1."""
    share_slow = sum(int((block > slow_ms).sum()) for block in blocks_ms) / sum(block.size for block in blocks_ms)
    if share_slow == 0:
        return 1.0
    longest = max(block.size for block in blocks_ms)
    covariance = np.zeros(longest)
    for block in blocks_ms:
        padded = 1 << (2 * block.size - 1).bit_length()  # padding prevents wrapping
        spectrum = np.fft.rfft((block > slow_ms) - share_slow, padded)
        covariance[: block.size] += np.fft.irfft(np.abs(spectrum) ** 2)[: block.size]
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    windows = np.flatnonzero(np.arange(longest) >= 5 * times)
    return max(1.0, float(times[windows[0]] if windows.size else times[-1]))


def histogram_of(latencies_ms: Latencies) -> HdrHistogram:
    """Make a histogram of whole microseconds, 1 µs to 1 hour, to three significant figures."""
    histogram = HdrHistogram(1, _LONGEST_US, _SIGNIFICANT_FIGURES)
    for latency_us in np.clip(np.rint(latencies_ms * 1000), 1, _LONGEST_US).astype(int).tolist():
        histogram.record_value(latency_us)
    return histogram


def latency_of(histogram: HdrHistogram) -> Latency:
    p50, p90, p99, p999 = (histogram.get_value_at_percentile(p) / 1000 for p in (50, 90, 99, 99.9))
    return Latency(p50_ms=p50, p90_ms=p90, p99_ms=p99, p999_ms=p999, max_ms=histogram.get_max_value() / 1000)


def merged(histograms: Sequence[HdrHistogram]) -> HdrHistogram:
    """Merge histograms for the percentiles of several blocks: percentiles are never averaged."""
    together = HdrHistogram(1, _LONGEST_US, _SIGNIFICANT_FIGURES)
    for histogram in histograms:
        together.add(histogram)
    return together
