"""When a run looks, how long it goes on, and that all looks together err no more often than one."""

from pathlib import Path

import pytest

from slipway.benchmark import GateOptions
from slipway.benchmark.looks import planned, single
from slipway.benchmark.statistics import PASS_ERROR


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
