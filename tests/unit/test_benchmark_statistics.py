"""The verdict on P99: figures, outcomes, and when a run looks. How often it errs: test_benchmark_verdict.py."""

import math
from pathlib import Path

import numpy as np
import pytest

from slipway.benchmark import GateOptions
from slipway.benchmark.looks import planned, single
from slipway.benchmark.statistics import (
    PASS_ERROR,
    histogram_of,
    independent_requests,
    judge_block,
    judge_generator,
    judge_run,
    merged,
    probability_at_most,
    requests_to_pass,
    weigh,
)
from slipway.contract.evidence.latency import LatencyVerdict

BLOCKS, REQUESTS = 3, 700


@pytest.mark.parametrize(
    ("over_limit", "requests"), [(0, 459), (1, 662), (10, 2_010), (77, 10_000), (167, 20_000), (927, 100_000)]
)
def test_so_many_over_the_limit_are_allowed_and_not_one_more(over_limit, requests):
    assert requests_to_pass(over_limit) <= requests < requests_to_pass(over_limit + 1)


@pytest.mark.parametrize(("over_limit", "requests"), [(0, 459), (1, 662), (10, 2_010)])
def test_these_numbers_of_requests_are_the_smallest(over_limit, requests):
    assert requests_to_pass(over_limit) == requests


@pytest.mark.parametrize(("over_limit", "requests"), [(0, 1), (3, 3), (3, 500), (10, 2_010), (40, 4_000)])
def test_the_probability_is_the_binomial_one(over_limit, requests):
    terms = (math.comb(requests, k) * 0.01**k * 0.99 ** (requests - k) for k in range(over_limit + 1))
    assert probability_at_most(over_limit, requests=requests) == pytest.approx(sum(terms), rel=1e-9)


@pytest.mark.parametrize(
    ("over_limit", "requests", "verdict"),
    [
        (0, 458, LatencyVerdict.TOO_FEW),
        (458, 458, LatencyVerdict.TOO_FEW),
        (0, 459, LatencyVerdict.PASS),
        (1, 661, LatencyVerdict.TOO_FEW),
        (1, 662, LatencyVerdict.PASS),
        (7, 700, LatencyVerdict.TOO_FEW),
        (8, 700, LatencyVerdict.FAIL),
    ],
)
def test_a_block_passes_fails_or_cannot_tell(over_limit, requests, verdict):
    assert judge_block(over_limit, requests=requests).verdict is verdict


def latencies(*, over_limit, requests=REQUESTS):
    """Latencies around 10 ms, independent, and `over_limit` of them at 60 ms."""
    values_ms = np.random.default_rng(requests + over_limit).normal(10, 1, requests)
    values_ms[np.linspace(0, requests - 1, over_limit, dtype=int)] = 60
    return values_ms


def judge(*blocks_ms, limit_ms=50.0, achieved_per_s=100.0, error=0.01, last=True):
    evidence = weigh(blocks_ms, limit_ms=limit_ms, error=error)
    return judge_run(evidence, last=last, offered_per_s=100.0, achieved_per_s=achieved_per_s)


def test_a_run_passes_when_its_blocks_do_together():
    assert judge(*[latencies(over_limit=1)] * 3).verdict is LatencyVerdict.PASS
    # 8 of 700 alone are more than 1 %; beside two blocks without any they are few.
    assert judge_block(8, requests=REQUESTS).verdict is LatencyVerdict.FAIL
    assert (
        judge(latencies(over_limit=0), latencies(over_limit=8), latencies(over_limit=0)).verdict is LatencyVerdict.PASS
    )
    assert judge(*[latencies(over_limit=5)] * 3).verdict is LatencyVerdict.TOO_FEW


def test_a_look_that_may_err_less_often_asks_for_more():
    blocks_ms = [latencies(over_limit=0, requests=250)] * 2
    assert judge(*blocks_ms).verdict is LatencyVerdict.PASS
    undecided = judge(*blocks_ms, error=0.001)
    assert undecided.verdict is LatencyVerdict.TOO_FEW
    assert (
        "500 effectively independent requests (a queue makes neighbours alike), and 688 are needed" in undecided.reason
    )
    assert requests_to_pass(0, error=0.001) == 688 == math.ceil(math.log(0.001) / math.log(0.99))


def test_a_run_fails_at_once_when_it_is_shown_to_be_over_the_limit_and_else_at_its_last_look():
    clear = judge(*[latencies(over_limit=40)] * 3, last=False)
    assert clear.verdict is LatencyVerdict.FAIL
    assert clear.reason == "120 of 2,100 requests over the limit: more than 1 %"
    assert judge(*[latencies(over_limit=9)] * 3, last=False).verdict is LatencyVerdict.TOO_FEW
    assert judge(*[latencies(over_limit=9)] * 3, last=True).verdict is LatencyVerdict.FAIL


def test_a_server_that_falls_behind_fails_whatever_its_latencies():
    assert judge(*[latencies(over_limit=0)] * 3, achieved_per_s=99.0).verdict is LatencyVerdict.PASS
    behind = judge(*[latencies(over_limit=0)] * 3, achieved_per_s=98.9, last=False)
    assert behind.verdict is LatencyVerdict.FAIL
    assert "98.9 of 100.0 requests/s achieved" in behind.reason


def test_requests_that_come_in_clusters_count_as_the_clusters():
    rng = np.random.default_rng(1)
    independent = [rng.lognormal(size=REQUESTS) for _ in range(BLOCKS)]
    clustered = [np.repeat(rng.lognormal(size=REQUESTS // 10), 10) for _ in range(BLOCKS)]
    highest = max(block.max() for block in clustered)
    assert independent_requests(independent, limit_ms=highest) > 0.8 * BLOCKS * REQUESTS
    assert independent_requests(clustered, limit_ms=highest) == pytest.approx(BLOCKS * REQUESTS / 10, rel=0.5)
    undecided = judge(*clustered, limit_ms=highest)
    assert undecided.verdict is LatencyVerdict.TOO_FEW
    assert "requests would do" in undecided.reason


def test_clusters_far_below_the_limit_do_not_matter():
    clustered = [np.repeat(np.random.default_rng(1).uniform(5, 10, size=REQUESTS // 10), 10)] * BLOCKS
    assert independent_requests(clustered, limit_ms=50.0) == BLOCKS * REQUESTS
    assert judge(*clustered, limit_ms=50.0).verdict is LatencyVerdict.PASS


def test_a_generator_is_late_when_its_p99_is_over_a_tenth_of_the_limit():
    on_time_ms = np.full(1000, 0.2)
    assert judge_generator(on_time_ms, limit_ms=50) is None
    few_late_ms = np.where(np.arange(1000) < 9, 80.0, 0.2)
    assert judge_generator(few_late_ms, limit_ms=50) is None
    late_ms = np.where(np.arange(1000) < 15, 5.5, 0.2)
    assert judge_generator(late_ms, limit_ms=60) is None
    judgement = judge_generator(late_ms, limit_ms=50)
    assert judgement.verdict is LatencyVerdict.LATE
    assert "requests left 5.5 ms late at their P99, over 10% of the limit" in judgement.reason


def test_percentiles_of_merged_histograms_are_those_of_all_requests_together():
    rng = np.random.default_rng(3)
    blocks_ms = [rng.lognormal(mean=mean, sigma=0.7, size=2_000) for mean in (1, 2, 4)]
    together = merged([histogram_of(block) for block in blocks_ms])
    assert together.get_total_count() == 6_000
    for percentile in (50, 90, 99, 99.9, 100):
        expected_ms = np.quantile(np.concatenate(blocks_ms), percentile / 100, method="nearest")
        assert together.get_value_at_percentile(percentile) / 1000 == pytest.approx(expected_ms, rel=2e-3)


def looks(rate_per_s, *, minutes=5.0, **changed):
    return planned(GateOptions(model="stub", images=Path(), **changed), rate_per_s=rate_per_s, minutes=minutes)


def sent(looks, *, warm_up=100):
    return sum(warm_up + requests for look in looks for requests in look.blocks)


def test_the_first_look_is_after_the_least_blocks_and_each_further_one_after_half_as_many_requests_again():
    first, *others = looks(50.0)
    assert first.blocks == (1000, 1000, 1000)
    assert [look.blocks for look in others] == [(1500,), (2250,), (3375,), (4175,)]


@pytest.mark.parametrize("rate_per_s", [10.0, 50.0, 73.0, 400.0, 5000.0])
@pytest.mark.parametrize("minutes", [0.5, 5.0, 30.0])
def test_a_run_ends_within_its_time_and_leaves_no_block_of_it_unused(rate_per_s, minutes):
    planned_looks = looks(rate_per_s, minutes=minutes)
    time, least = 60 * minutes * rate_per_s, 3 * 1100
    assert sent(planned_looks) <= max(time, least)
    assert sent(planned_looks) > time - 1100
    assert len(planned_looks) <= 25


@pytest.mark.parametrize("rate_per_s", [10.0, 50.0, 5000.0])
def test_the_looks_share_what_one_look_might_err(rate_per_s):
    planned_looks = looks(rate_per_s)
    assert sum(look.error for look in planned_looks) == pytest.approx(PASS_ERROR)
    assert [look.last for look in planned_looks] == [False] * (len(planned_looks) - 1) + [True]
    for look in planned_looks:
        share = sum(look.blocks) / sum(sum(other.blocks) for other in planned_looks)
        assert look.error == pytest.approx(PASS_ERROR * share)


def test_the_least_blocks_are_offered_however_long_they_take():
    assert [look.blocks for look in looks(1.0)] == [(1000, 1000, 1000)]


def test_a_fixed_measurement_is_one_look():
    (look,) = single(blocks=2, requests=500)
    assert (look.blocks, look.error, look.last) == ((500, 500), PASS_ERROR, True)
