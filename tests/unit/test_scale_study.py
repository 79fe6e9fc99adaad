"""The simulated queue of the study `scale`, and the files of `scale` and `resize`."""

import numpy as np
import pytest

from benchmarks.studies.climbing import BUSY, TAIL
from benchmarks.studies.scale.__main__ import RESULT, simulated, slowings
from benchmarks.studies.scale.queue import LIMIT_MS, Layout, Step, split, steady_tail
from benchmarks.studies.scale.result import ScaleResult


def test_requests_wait_for_a_free_process_in_the_order_of_their_arrival() -> None:
    arrive_ms, work_ms = np.array([0.0, 1.0, 2.0]), np.full(3, 10.0)
    assert Step(1, work_ms, 1, 1.0).leave_ms(arrive_ms).tolist() == [10, 20, 30]
    assert Step(2, work_ms, 1, 1.0).leave_ms(arrive_ms).tolist() == [10, 11, 20]


def test_those_that_wait_are_taken_together() -> None:
    arrive_ms, work_ms = np.array([0.0, 1.0, 2.0, 50.0]), np.full(4, 10.0)
    assert Step(1, work_ms, 2, 0.9).leave_ms(arrive_ms).tolist() == [10, 28, 28, 60]


def test_requests_that_overtook_each_other_come_back_in_their_own_places() -> None:
    assert Step(1, np.array([1.0, 2.0]), 1, 1.0).leave_ms(np.array([5.0, 0.0])).tolist() == [6, 2]


def test_a_simple_queue_has_the_p99_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    layout = Layout((1,), (rng.exponential(1.0, 200_000),), 1, 1.0, 0.0)
    # M/M/1 at a load of 0.5: the time in it is exponential with mean 2 ms. Kleinrock, Queueing Systems I, 3.2.
    assert layout.quantile_ms(500, rng.exponential(1.0, 200_000).cumsum()) == pytest.approx(2 * np.log(100), rel=0.05)


def test_requests_that_all_take_as_long_have_a_tail_by_waiting_alone() -> None:
    assert steady_tail(1, busy=0.01) == pytest.approx(1, abs=0.01)
    one, two, four, eight = (steady_tail(processes, busy=BUSY) for processes in (1, 2, 4, 8))
    assert one > two > four > TAIL > eight > 1, "docs/benchmarks.md says so"


def test_a_capacity_is_the_highest_rate_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    arrivals, work = rng.exponential(1.0, 4000).cumsum(), np.full(4000, 8.0)
    layout = Layout((2,), (work,), 2, 1.0, 0.05)
    rate = layout.capacity_per_s(arrivals)
    assert 100 < rate < 250
    assert layout.quantile_ms(rate, arrivals) <= LIMIT_MS < layout.quantile_ms(1.1 * rate, arrivals)
    assert Layout((2,), (np.full(4000, 51.0),), 1, 1.0, 0.0).capacity_per_s(arrivals) == 0


def test_cores_are_divided_by_the_work_of_the_steps() -> None:
    light, heavy = np.full(2, 1.0), np.full(2, 9.0)
    assert [split(cores, (light, heavy)) for cores in (2, 10, 64)] == [(1, 1), (1, 9), (6, 58)]
    assert split(2, (heavy, light)) == (1, 1)


def test_bandwidth_slows_a_core_once_or_with_each_further_core() -> None:
    assert slowings(0.06, 2) == (0.06, 0.01)
    assert slowings(0.06, 64) == (pytest.approx(0.06 / 63), 0.01)
    assert slowings(-0.01, 8) == (0, 0.01)


def test_the_published_machines_are_those_of_the_published_times() -> None:
    published = ScaleResult.read(RESULT)
    few = published.held[:8]
    again = simulated(published.measured, published.overhead, np.random.default_rng(published.seed + 1))
    for before, now in zip(few, again, strict=False):
        assert (now.cores, now.layout, now.processes) == (before.cores, before.layout, before.processes)
        assert now.per_s == pytest.approx(before.per_s, rel=0.25)
