"""E-values on counts, their dispersion, and the burst that is left out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.operations.release.e_values import (
    MIN_BLOCKS,
    RATIOS,
    dispersion_of,
    log_evidence,
    share_at,
    sums,
    worst_bursts,
)

SHARES = st.floats(0.01, 0.99)
BURST = 24


@pytest.mark.parametrize("side", ["over", "under"])
@given(share=SHARES, true=SHARES, events=st.integers(1, 8))
def test_the_expectation_of_an_e_value_is_at_most_1_under_its_null_hypothesis(side, share, true, events):
    true = min(true, share) if side == "over" else max(true, share)
    counted = np.arange(events + 1.0)
    values = np.exp([log_evidence(np.array([c]), np.array([events - c]), share, side=side)[0] for c in counted])
    chances = [math.comb(events, int(c)) * true**c * (1 - true) ** (events - c) for c in counted]
    assert float(values @ np.array(chances)) <= 1 + 1e-9


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12), st.floats(0.05, 0.95))
def test_an_e_value_does_not_depend_on_how_counts_are_cut_into_blocks(pairs, share):
    counted, other = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    in_blocks = log_evidence(counted, other, share, side="over")[-1]
    at_once = log_evidence(counted.sum(keepdims=True), other.sum(keepdims=True), share, side="over")[-1]
    assert in_blocks == pytest.approx(at_once, abs=1e-9)


def test_the_alternatives_are_the_quantiles_of_the_stated_law():
    shares = RATIOS / (1 + RATIOS)
    assert (RATIOS > 1).all()
    assert 3 * shares**2 - 2 * shares**3 == pytest.approx((1 + (np.arange(64) + 0.5) / 64) / 2)


def test_independent_counts_have_no_dispersion_and_bursts_count_once():
    rng = np.random.default_rng(1)
    of = np.full(2000, 50.0)
    assert dispersion_of([(rng.binomial(50, 0.02, 2000).astype(float), of)])[-1] < 1.2
    bursts = np.where(rng.random(2000) < 0.01, 30.0, 0.0)
    worst = dispersion_of([(bursts, of)])[-1]
    assert bursts.sum() / worst <= (bursts > 0).sum()


def test_bursts_that_outlast_a_block_are_seen_in_groups_and_carried_to_the_larger_arm():
    rng = np.random.default_rng(2)
    bursting = np.repeat(rng.random(200) < 0.03, 10)
    small = (np.where(bursting, 10.0, 0.0), np.full(2000, 50.0))
    large = (np.zeros(2000), np.full(2000, 450.0))
    alone, both = dispersion_of([small])[-1], dispersion_of([small, large])[-1]
    assert alone > 60  # ten blocks of ten errors
    assert both > 5 * alone


def test_sums_leave_out_the_two_minutes_in_which_most_was_counted_beyond_the_expected():
    rng = np.random.default_rng(3)
    of, counted = np.full(90, 50.0), rng.poisson(2, 90).astype(float)
    counted[30:60] += rng.poisson(5, 30)
    expected = np.full(90, 2.0)
    excess = counted - expected
    left = sums(excess, without=worst_bursts(counted, of, expected, length=BURST))
    for look in range(90):
        windows = [excess[max(0, end + 1 - BURST) : end + 1].sum() for end in range(look + 1)]
        assert left[look] == pytest.approx(excess[: look + 1].sum() - max(0.0, *windows))


def test_blocks_in_which_surely_more_than_half_of_the_requests_fail_are_no_burst():
    few, many = np.full(60, 1.0), np.full(60, 50.0)
    for of, failing, ends in ((many, 0.4, 59), (many, 0.9, -1), (few, 0.6, 59), (few[:8], 1.0, 7)):
        bursts = worst_bursts(failing * of, of, 0.01 * of, length=BURST)
        assert bursts.last[-1] == ends, (of[0], failing)


def test_nothing_is_known_before_six_blocks_with_traffic():
    of = np.array([0.0, 50, 50, 50, 50, 50, 50])
    assert np.isinf(dispersion_of([(of * 0, of)])).tolist() == [True] * MIN_BLOCKS + [False]


def test_a_share_needs_traffic():
    assert share_at(2, np.array([0.0, 10, 10]), np.array([0.0, 0, 10])) == pytest.approx([0, 1, 2 / 3])
