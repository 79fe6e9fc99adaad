"""The gate against a server that writes down what it did: are its percentiles true, and a closed loop's not?"""

import asyncio
import time

import numpy as np
import pytest

from slipway.benchmark import GateOptions, run_gate
from slipway.benchmark.load import poisson_schedule, precise_loop
from slipway.benchmark.server import TritonConnection
from tests.support.stub_process import stub_process

LATENCY_MS, SIGMA, STALL_AT_S, STALL_S = 120, 0.3, 10, 2
SERVER = ("--latency-ms", LATENCY_MS, "--sigma", SIGMA, "--stall-at-s", STALL_AT_S, "--stall-s", STALL_S)
RATE_PER_S, BLOCKS, WARM_UP, REQUESTS, SEED = 100.0, 3, 20, 680, 3
"""21 s, so that the stall is in one of the blocks however long the generators take to start."""
PERCENTILES = (50, 90, 99)
USERS, ASKING_S = 4, 20
pytestmark = pytest.mark.nightly  # 20 seconds each, and a busy machine adds what the server's log does not know


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"image %d" % number)
    return folder


def test_the_percentiles_are_those_of_the_servers_own_log_and_the_schedule(images):
    with stub_process(*SERVER) as stub:
        result = run_gate(
            GateOptions(
                model="stub",
                images=images,
                url=stub.url,
                rate_per_s=RATE_PER_S,
                blocks=BLOCKS,
                requests_per_block=REQUESTS,
                warm_up_requests=WARM_UP,
                minutes=0.1,
                limit_ms=1000,
                deadline_ms=10_000,
                generators=2,
                seed=SEED,
            )
        )
        truth_ms = latencies_by_the_log(stub.log())
    assert truth_ms.size == BLOCKS * REQUESTS
    measured_ms = [result.latency.p50_ms, result.latency.p90_ms, result.latency.p99_ms]
    expected_ms = np.percentile(truth_ms, PERCENTILES, method="inverted_cdf")
    # A machine too busy to send on time is as late to read an answer, which is nothing that the server's log knows.
    assert measured_ms == pytest.approx(expected_ms, rel=0.02, abs=result.generator.schedule_error_p99_ms)
    # What the slow ones waited for is the stall, and they are many.
    assert result.latency.p99_ms > 0.75 * STALL_S * 1000
    assert any(block.verdict == "fail" for block in result.blocks)


def latencies_by_the_log(log):
    """From the time at which each counted request was due to the one at which the server says it answered.

    A block's zero is not in the log, but the promptest arrival is as good: it came when it was due.
    """
    requests = WARM_UP + REQUESTS
    # Without the requests that were asked alone, before the blocks: the gate's first answer and its look at the queue.
    served = sorted(log, key=lambda line: line["arrived_s"])[-BLOCKS * requests :]
    latencies_ms = []
    for number in range(BLOCKS):
        block = served[number * requests : (number + 1) * requests]
        arrived_s, answered_s = (np.array([line[key] for line in block]) for key in ("arrived_s", "answered_s"))
        due_s = poisson_schedule(requests, rate_per_s=RATE_PER_S, rng=np.random.default_rng([SEED, number]))
        start_s = (arrived_s - due_s).min()
        latencies_ms.append((answered_s - start_s - due_s)[WARM_UP:] * 1000)
    return np.concatenate(latencies_ms)


def test_a_closed_loop_sees_a_server_without_a_stall():
    """Four users that wait for their answers stop asking when nobody answers: the same stall is four slow requests."""
    with stub_process(*SERVER) as stub:
        closed_ms = closed_loop(stub.url)
        log = stub.log()
    stalled = [line for line in log if line["answered_s"] - line["arrived_s"] > 0.75 * STALL_S]
    assert 1 <= len(stalled) <= USERS
    assert np.percentile(closed_ms, 99) < STALL_S * 1000 / 4
    assert closed_ms.max() > 0.75 * STALL_S * 1000


def closed_loop(url):
    """The latencies in ms of the usual way: ask, wait, ask again."""

    async def asking():
        latencies_ms, over_s = [], time.monotonic() + ASKING_S

        async def user():
            while (started_s := time.monotonic()) < over_s:
                assert await server.ask(0, deadline_s=10) is None
                latencies_ms.append((time.monotonic() - started_s) * 1000)

        async with TritonConnection(url, model="stub", images=[b"image"]) as server:
            await asyncio.gather(*(user() for _ in range(USERS)))
        return np.array(latencies_ms)

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(asking())
