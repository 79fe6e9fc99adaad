"""The open loop against a real gRPC server of the KServe protocol whose behaviour is known."""

import asyncio
import time

import numpy as np
import pytest

from slipway.benchmark.figures import rates_per_s
from slipway.benchmark.load import Sent, counted, offer, poisson_schedule, precise_loop, rate_per_s
from slipway.benchmark.server import TritonConnection
from tests.support.kserve_stub import Stub, serving


def run_async(coroutine):
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(coroutine)


async def open_loop(url, images, schedule_s, *, deadline_ms=2000.0, warm_up=0):
    """Request `i` sends image `i`."""
    async with TritonConnection(url, model="stub", images=images) as server:
        await server.first_answer()
        return await offer(
            schedule_s,
            lambda index: server.ask(index, deadline_s=deadline_ms / 1000),
            warm_up=warm_up,
            deadline_ms=deadline_ms,
        )


async def closed_loop(url, images):
    """The usual way, for comparison: ask, wait, ask again."""
    latencies_ms = []
    async with TritonConnection(url, model="stub", images=images) as server:
        for index in range(len(images)):
            started_s = time.perf_counter()
            await server.ask(index, deadline_s=2)
            latencies_ms.append((time.perf_counter() - started_s) * 1000)
    return np.array(latencies_ms)


def schedule(requests, *, rate_per_s, seed=0):
    return poisson_schedule(requests, rate_per_s=rate_per_s, rng=np.random.default_rng(seed))


def test_the_schedule_is_poisson_and_repeatable():
    gaps_s = np.diff(schedule(20_000, rate_per_s=50))
    assert gaps_s.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps_s.std() == pytest.approx(1 / 50, rel=0.03)
    assert (schedule(100, rate_per_s=50) == schedule(100, rate_per_s=50)).all()
    assert (schedule(100, rate_per_s=50) != schedule(100, rate_per_s=50, seed=1)).all()


@pytest.mark.nightly
def test_a_stall_is_charged_to_every_request_that_it_delayed():
    images = [b"fine"] * 100
    images[30] = b"stall"
    schedule_s = schedule(100, rate_per_s=100)
    with serving(Stub(service_s=0.001, stall_s=0.4)) as url:
        block = run_async(open_loop(url, images, schedule_s))
        closed_ms = run_async(closed_loop(url, images))
    delayed = (schedule_s >= schedule_s[30]) & (schedule_s < schedule_s[30] + 0.28)
    assert delayed.sum() > 20
    assert (block.latencies_ms[delayed] > 100).all()
    assert (closed_ms > 100).sum() == 1
    assert not block.failures


def test_latencies_are_those_of_the_queue():
    """First come, first served, 20 ms each: the waiting times follow from the schedule alone.

    So long that what a busy machine adds to each is little beside it.
    """
    service_s, schedule_s = 0.02, schedule(150, rate_per_s=25)
    with serving(Stub(service_s=service_s)) as url:
        block = run_async(open_loop(url, [b"fine"] * 150, schedule_s, warm_up=20))
    done_s = np.empty_like(schedule_s)
    free_s = 0.0
    for index, due_s in enumerate(schedule_s):
        done_s[index] = free_s = max(free_s, due_s) + service_s
    # In the order of the answers: on a busy machine, of two that come together the second may be taken first.
    answered_s = schedule_s[20:] + block.latencies_ms / 1000
    extra_ms = (np.sort(answered_s) - done_s[20:]) * 1000
    assert extra_ms.min() > -0.1
    assert np.quantile(extra_ms, 0.25) < 1000 * service_s
    assert np.median(block.schedule_errors_ms) < 500 * service_s
    assert block.latencies_ms.size == 130
    assert block.warm_up_s >= schedule_s[19]
    assert rate_per_s([block.answered]) == pytest.approx(rate_per_s([block.due]), rel=0.05)


def test_whatever_is_not_a_right_answer_counts_as_the_deadline():
    images = [b"fine", b"reject", b"break", b"bad", b"bad", b"fine", b"stall"]
    with serving(Stub(stall_s=0.5)) as url:
        block = run_async(open_loop(url, images, np.arange(1, 8) / 20, deadline_ms=300.0))
    assert block.failures == {"rejected": 1, "error INTERNAL": 1, "STATUS 3": 2, "timed out": 1}
    assert (block.latencies_ms[[1, 2, 3, 4, 6]] >= 300).all()
    assert (block.latencies_ms[[0, 5]] < 300).all()
    assert block.answered.count + 1 == 2


def block_of(due_s, done_s, *, right):
    """As `counted` makes it, with a deadline of 1 s."""
    outcomes = [None if ok else "rejected" for ok in right]
    return counted(due_s, Sent(due_s, done_s, outcomes), warm_up=0, deadline_ms=1000)


def test_the_achieved_rate_is_that_of_right_answers_and_of_backlogs_beyond_the_limit():
    due_s = np.arange(100) / 100
    all_right = np.ones(100, bool)

    def share(done_s, right=all_right):
        offered_per_s, achieved_per_s = rates_per_s([block_of(due_s, done_s, right=right)], limit_ms=50)
        return achieved_per_s / offered_per_s

    assert share(due_s + 0.01) == 1
    assert share(due_s + np.linspace(0.01, 0.05, 100)) == 1  # the last a little later than the first: no backlog
    assert share(due_s + np.linspace(0.01, 1.01, 100)) == pytest.approx(0.99 / (1.99 - 0.05))
    # Quick refusals are no answers, nor is silence from the middle on.
    assert share(due_s + 0.01, right=np.arange(100) % 2 == 0) == pytest.approx(0.5, abs=0.02)
    assert share(due_s + 0.01, right=np.arange(100) < 50) == pytest.approx(0.5, abs=0.02)


def test_a_server_that_cannot_keep_up_is_seen_in_the_achieved_rate():
    with serving(Stub(service_s=0.01)) as url:
        block = run_async(open_loop(url, [b"fine"] * 60, schedule(60, rate_per_s=200), deadline_ms=5000.0))
    assert not block.failures
    assert rate_per_s([block.answered]) < 0.7 * rate_per_s([block.due])
