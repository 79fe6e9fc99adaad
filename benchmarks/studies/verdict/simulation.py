"""Simulated servers with a known P99, and the runs of the gate on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slipway.contract.evidence.studies import JudgedServer, RulePasses

if TYPE_CHECKING:
    from slipway.benchmark import GateOptions
    from slipway.benchmark.looks import Look
    from slipway.contract.evidence.latency import LatencyVerdict

UTILISATIONS = {
    50: {
        "M/D/1": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
        "M/M/1": (0.3, 0.5, 0.7, 0.9),
        "M/H2/1": (0.3, 0.5, 0.7),
        "stall in 500": (0.3,),
        "stall in 2000": (0.3,),
    },
    150: {"M/D/1": (0.5, 0.7, 0.9), "M/M/1": (0.5, 0.7), "M/H2/1": (0.3,)},
}
"""Utilisations by server and requests per second. At 150/s a run has three times the requests."""
NOT_JUDGED = ("stall in 2000",)
"""Servers that are shown and not judged: in a fifth of the runs the 3,000 requests before the first verdict meet no
stall."""
ALLOWED = 0.01
"""Allowed false passes, as a share of all runs with the true P99 on the limit."""
LIMIT_BY_P99 = {"at the limit": 1.0, "20 % under": 1 / 0.8, "half of it": 2.0}
LONG_BLOCKS, LONG_REQUESTS, LONG_WARM_UP = 32, 250_000, 10_000
"""Size of the simulation that finds the true P99."""

Latencies = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Workload:
    """A server whose latencies are known, in units of its mean service time (independent ones: of their median)."""

    name: str
    utilisation: float | None
    rate_per_s: int
    simulate: Callable[[np.random.Generator, tuple[int, ...]], Latencies]


def options() -> "GateOptions":
    """Return the gate's defaults."""
    from slipway.benchmark import GateOptions

    return GateOptions(model="simulated", images=Path())


def workloads() -> list[Workload]:
    queues = [
        Workload(name, utilisation, rate_per_s, partial(queue, name, utilisation))
        for rate_per_s, servers in UTILISATIONS.items()
        for name, utilisations in servers.items()
        for utilisation in utilisations
    ]
    return [Workload("independent", None, next(iter(UTILISATIONS)), independent), *queues]


def independent(rng: np.random.Generator, shape: tuple[int, ...]) -> Latencies:
    return rng.lognormal(sigma=0.5, size=shape)


def queue(name: str, utilisation: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Latencies:
    """Simulate the times in a first-come-first-served queue with Poisson arrivals, by Lindley's recursion (1952)."""
    services = service_times(name, rng, shape)
    steps = services[..., :-1] - rng.exponential(1 / utilisation, shape)[..., 1:]
    backlog = np.cumsum(np.concatenate([np.zeros((*shape[:-1], 1)), steps], axis=-1), axis=-1)
    waits: Latencies = backlog - np.minimum.accumulate(backlog, axis=-1)
    return waits + services


def service_times(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Latencies:
    match name:
        case "M/D/1":
            return np.ones(shape)
        case "M/M/1":
            return rng.exponential(size=shape)
        case "M/H2/1":
            return np.where(rng.random(shape) < 0.1, rng.exponential(5.5, shape), rng.exponential(0.5, shape))
        case "stall in 500":
            return 1.0 + np.where(rng.random(shape) < 1 / 500, rng.exponential(10, shape), 0.0)
        case _:
            return 1.0 + np.where(rng.random(shape) < 1 / 2000, rng.exponential(20, shape), 0.0)


def judged(workload: Workload, *, runs: int, seed: int, long_blocks: int = LONG_BLOCKS) -> JudgedServer:
    """Return the shares of runs that pass and fail, and their mean length, for each place of the true P99."""
    from slipway.benchmark.looks import planned
    from slipway.contract.evidence.latency import LatencyVerdict

    rng = np.random.default_rng([seed, *workload.name.encode(), int(100 * (workload.utilisation or 0))])
    p99 = float(np.quantile(workload.simulate(rng, (long_blocks, LONG_REQUESTS))[:, LONG_WARM_UP:], 0.99))
    asked = options()
    looks = planned(asked, rate_per_s=workload.rate_per_s, minutes=asked.minutes)
    shares = {}
    for place, limit_by_p99 in LIMIT_BY_P99.items():
        # The same requests for every place, whenever the runs end.
        draws = (np.random.default_rng([seed, int(1e6 * p99), run]) for run in range(runs))
        ended = [one_run(workload, looks, rng, limit=limit_by_p99 * p99) for rng in draws]
        shares[place] = RulePasses(
            rule=sum(verdict is LatencyVerdict.PASS for verdict, _ in ended) / runs,
            fails=sum(verdict is LatencyVerdict.FAIL for verdict, _ in ended) / runs,
            seconds=round(sum(requests for _, requests in ended) / runs / workload.rate_per_s, 1),
        )
    return JudgedServer(
        server=workload.name,
        utilisation=workload.utilisation,
        rate_per_s=workload.rate_per_s,
        true_p99=p99,
        passes=shares,
        allowed=None if workload.name in NOT_JUDGED else ALLOWED,
    )


def one_run(
    workload: Workload, looks: "Sequence[Look]", rng: np.random.Generator, *, limit: float
) -> "tuple[LatencyVerdict, int]":
    """Run the gate once; returns the verdict, and the number of requests, warm-ups included. A block starts with an
    empty queue."""
    from slipway.benchmark.statistics import judge_run, weigh
    from slipway.contract.evidence.latency import LatencyVerdict

    warm_up, blocks = options().warm_up_requests, []
    verdict = LatencyVerdict.TOO_FEW
    for look in looks:
        blocks += [workload.simulate(rng, (warm_up + requests,))[warm_up:] for requests in look.blocks]
        evidence = weigh(blocks, limit_ms=limit, error=look.error)
        verdict = judge_run(evidence, last=look.last, offered_per_s=1.0, achieved_per_s=1.0).verdict
        if verdict is not LatencyVerdict.TOO_FEW:
            break
    return verdict, sum(warm_up + block.size for block in blocks)
