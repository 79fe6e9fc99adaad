"""The choice of the journal, simulated: its share, its rate, and what it weighs back to."""

import random

import numpy as np
import pytest


# The rule of guard.lua, for what no test could send: days of requests. The real one is asked in tests/serving.
def sampled(
    arrivals_s: np.ndarray, *, share: float, per_second: float, draw: random.Random
) -> list[tuple[float, float]]:
    start, count, rate = 0.0, 0, 0.0
    found = []
    for now in arrivals_s:
        passed = now - start
        if passed < 0 or passed >= 1:
            start, rate, count = now, count / passed if passed > 0 else 0.0, 0
        count += 1
        probability = min(share, per_second / max(rate, count))
        if draw.random() < probability:
            found.append((now, probability))
    return found


@pytest.mark.parametrize("rate", [0.2, 5.0, 40.0, 400.0])
def test_the_sample_holds_its_share_and_its_rate_and_weighs_back_to_all_requests(rate: float) -> None:
    draw = np.random.default_rng(22)
    seconds, runs, weighed, counts = 60.0, 40 if rate > 100 else 100, [], []
    for run in range(runs):
        arrivals = np.sort(draw.uniform(0, seconds, draw.poisson(rate * seconds))) + 1e9
        found = sampled(arrivals, share=0.5, per_second=5, draw=random.Random(run))
        counts.append(len(found))
        weighed.append(sum(1 / probability for _, probability in found) - len(arrivals))
    error = float(np.mean(weighed)) / (float(np.std(weighed)) / runs**0.5)
    assert abs(error) < 3.5
    assert np.mean(counts) / seconds <= 5 * 1.1
    if rate <= 5:
        assert np.mean(counts) == pytest.approx(0.5 * rate * seconds, rel=0.1)


def test_a_burst_and_a_clock_that_goes_back_are_bounded() -> None:
    burst = 1e9 + np.arange(5000) / 5000  # a second of 5,000 after silence
    assert len(sampled(burst, share=1, per_second=5, draw=random.Random(1))) < 5 * (1 + np.log(5000)) + 30
    back = np.concatenate([burst, burst - 3600])
    assert len(sampled(back, share=1, per_second=5, draw=random.Random(1))) < 2 * (5 * (1 + np.log(5000)) + 30)
