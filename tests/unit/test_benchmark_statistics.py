"""The verdict on P99: the rule's figures, its three outcomes, and how often it passes what it should not."""

import math

import numpy as np
import pytest

from slipway.benchmark.statistics import (
    Verdict,
    histogram_of,
    independent_requests,
    judge_block,
    judge_run,
    merged,
    probability_at_most,
    requests_to_pass,
)

RUNS, BLOCKS, REQUESTS, WARM_UP = 400, 3, 700, 100


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
        (0, 458, Verdict.TOO_FEW),
        (458, 458, Verdict.TOO_FEW),
        (0, 459, Verdict.PASS),
        (1, 661, Verdict.TOO_FEW),
        (1, 662, Verdict.PASS),
        (7, 700, Verdict.TOO_FEW),
        (8, 700, Verdict.FAIL),
    ],
)
def test_a_block_passes_fails_or_cannot_tell(over_limit, requests, verdict):
    assert judge_block(over_limit, requests=requests).verdict is verdict


def latencies(*, over_limit, requests=REQUESTS):
    """Latencies around 10 ms, independent, and `over_limit` of them at 60 ms."""
    values_ms = np.random.default_rng(requests + over_limit).normal(10, 1, requests)
    values_ms[:over_limit] = 60
    return values_ms


def judge(*blocks_ms, limit_ms=50.0, achieved_per_s=100.0):
    return judge_run(blocks_ms, limit_ms=limit_ms, offered_per_s=100.0, achieved_per_s=achieved_per_s)


def test_a_run_passes_only_when_every_block_does():
    assert judge(*[latencies(over_limit=1)] * 3).verdict is Verdict.PASS
    failed = judge(latencies(over_limit=0), latencies(over_limit=8), latencies(over_limit=0))
    assert failed.verdict is Verdict.FAIL
    assert failed.reason == "block 2: 8 of 700 requests over the limit: more than 1 %"
    assert judge(latencies(over_limit=0), latencies(over_limit=3)).verdict is Verdict.TOO_FEW


def test_one_short_block_leaves_the_run_undecided():
    undecided = judge(latencies(over_limit=8), latencies(over_limit=0, requests=458))
    assert undecided.verdict is Verdict.TOO_FEW
    assert "458 requests" in undecided.reason


def test_a_server_that_falls_behind_fails_whatever_its_latencies():
    assert judge(*[latencies(over_limit=0)] * 3, achieved_per_s=99.0).verdict is Verdict.PASS
    behind = judge(*[latencies(over_limit=0)] * 3, achieved_per_s=98.9)
    assert behind.verdict is Verdict.FAIL
    assert "98.9 of 100.0 requests/s achieved" in behind.reason


def test_requests_that_come_in_clusters_count_as_the_clusters():
    rng = np.random.default_rng(1)
    independent = [rng.lognormal(size=REQUESTS) for _ in range(BLOCKS)]
    clustered = [np.repeat(rng.lognormal(size=REQUESTS // 10), 10) for _ in range(BLOCKS)]
    highest = max(block.max() for block in clustered)
    assert independent_requests(independent, limit_ms=highest) > 0.8 * BLOCKS * REQUESTS
    assert independent_requests(clustered, limit_ms=highest) == pytest.approx(BLOCKS * REQUESTS / 10, rel=0.3)
    undecided = judge(*clustered, limit_ms=highest)
    assert undecided.verdict is Verdict.TOO_FEW
    assert "requests a block would do" in undecided.reason


def test_clusters_far_below_the_limit_do_not_matter():
    clustered = [np.repeat(np.random.default_rng(1).uniform(5, 10, size=REQUESTS // 10), 10)] * BLOCKS
    assert independent_requests(clustered, limit_ms=50.0) == BLOCKS * REQUESTS
    assert judge(*clustered, limit_ms=50.0).verdict is Verdict.PASS


def independent(rng, shape):
    return rng.lognormal(sigma=0.5, size=shape)


def queue(rng, shape, *, utilisation, exponential_service=False):
    """Times in a first-come-first-served M/D/1 or M/M/1 queue with mean service 1, by Lindley's recursion."""
    services = rng.exponential(size=shape) if exponential_service else np.ones(shape)
    steps = services[..., :-1] - rng.exponential(1 / utilisation, shape)[..., 1:]
    backlog = np.cumsum(np.concatenate([np.zeros((*shape[:-1], 1)), steps], axis=-1), axis=-1)
    return backlog - np.minimum.accumulate(backlog, axis=-1) + services


def simulated_pass_rate(simulate, *, limit_by_p99, **parameters):
    """Share of runs that pass with the limit at `limit_by_p99` times the true P99, which a long simulation gives."""
    rng = np.random.default_rng(7)
    p99 = np.quantile(simulate(rng, (8, 250_000), **parameters)[:, 10_000:], 0.99)
    runs = simulate(rng, (RUNS, BLOCKS, WARM_UP + REQUESTS), **parameters)[..., WARM_UP:]
    verdicts = [judge(*blocks, limit_ms=limit_by_p99 * p99).verdict for blocks in runs]
    return verdicts.count(Verdict.PASS) / RUNS


@pytest.mark.parametrize("utilisation", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("exponential_service", [False, True], ids=["M/D/1", "M/M/1"])
def test_a_queue_whose_p99_is_the_limit_passes_at_most_5_percent_of_the_time(utilisation, exponential_service):
    # By 2,000 simulated runs the rates are at most 0.4 %, so the draw of these 400 decides nothing.
    rate = simulated_pass_rate(queue, limit_by_p99=1, utilisation=utilisation, exponential_service=exponential_service)
    assert rate <= 0.05


def test_independent_latencies_whose_p99_is_the_limit_pass_at_most_1_percent_of_the_time():
    assert simulated_pass_rate(independent, limit_by_p99=1) <= 0.01


def test_blocks_alone_would_pass_a_busy_queue_too_often():
    """Why the run is judged once more as a whole: the rule takes its requests as independent."""
    rng = np.random.default_rng(7)
    p99 = np.quantile(queue(rng, (8, 250_000), utilisation=0.8)[:, 10_000:], 0.99)
    runs = queue(rng, (RUNS, BLOCKS, WARM_UP + REQUESTS), utilisation=0.8)[..., WARM_UP:]
    over_limit = (runs > p99).sum(axis=-1)
    assert requests_to_pass(1) <= REQUESTS < requests_to_pass(2)
    assert (over_limit <= 1).all(axis=-1).mean() > 0.15


@pytest.mark.parametrize(("simulate", "parameters"), [(independent, {}), (queue, {"utilisation": 0.3})])
def test_a_server_with_half_the_limit_passes(simulate, parameters):
    assert simulated_pass_rate(simulate, limit_by_p99=2, **parameters) >= 0.9


def test_percentiles_of_merged_histograms_are_those_of_all_requests_together():
    rng = np.random.default_rng(3)
    blocks_ms = [rng.lognormal(mean=mean, sigma=0.7, size=2_000) for mean in (1, 2, 4)]
    together = merged([histogram_of(block) for block in blocks_ms])
    assert together.get_total_count() == 6_000
    for percentile in (50, 90, 99, 99.9, 100):
        expected_ms = np.quantile(np.concatenate(blocks_ms), percentile / 100, method="nearest")
        assert together.get_value_at_percentile(percentile) / 1000 == pytest.approx(expected_ms, rel=2e-3)
