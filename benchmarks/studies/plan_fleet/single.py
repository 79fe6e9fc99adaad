"""Compares a plan's figures with those of measured boxes."""

import numpy as np

from benchmarks.studies.density.result import FullDensityResult
from benchmarks.studies.gateway.result import GatewayResult
from benchmarks.studies.plan_fleet.boxes import Traffic, p99_ms, served
from benchmarks.studies.study import RESULTS
from slipway.contract.evidence.latency import CapacityResult, LatencyResult
from slipway.contract.evidence.studies import Part, RobustnessResult


class MeasuredBox(Part):
    """One figure of one box, planned and measured."""

    what: str
    planned: float
    measured: float
    unit: str
    independent: bool
    """False if the plan has this figure from the same measurement, so that agreement proves nothing."""


def measured_boxes(rng: np.random.Generator, *, requests: int = 100_000) -> list[MeasuredBox]:
    return [*_density(), *_fifty(), *_gateway(), *_queueing(rng, requests)]


def _row(what: str, planned: float, measured: float, unit: str, *, independent: bool = True) -> MeasuredBox:
    return MeasuredBox(what=what, planned=planned, measured=measured, unit=unit, independent=independent)


def _density() -> list[MeasuredBox]:
    """Compare 1,000 heads. A plan takes one figure for all of them, by one head's rate and by memory.

    The memory of 200 heads is from density.json too; later code, in density_changes.json, takes less.
    """
    found = FullDensityResult.read(RESULTS / "density.json")
    latency, changes = found.latency, found.changes
    assert latency is not None, "the published result has every part"
    assert changes is not None
    alone_mib, rate = latency.alone.memory_mib, latency.rate_per_s
    of_200 = (changes.memory_mib_at_start_and_after_1_50_100[0] - alone_mib) / (changes.changed_among - 1)
    return [
        _row(
            f"1,000 heads, P99 at the {rate:.1f}/s that one alone held, at most",
            found.limit_ms,
            latency.p99_ms["among"],
            "ms",
        ),
        _row(f"100 of 1,000 heads in turn at {rate:.1f}/s, P99, at most", 50.0, latency.p99_ms["spread"], "ms"),
        _row(
            "1,000 heads, memory, from one head and from 200",
            alone_mib + of_200 * (latency.heads - 1),
            latency.among.memory_mib,
            "MiB",
        ),
    ]


def _fifty() -> list[MeasuredBox]:
    found = RobustnessResult.read(RESULTS / "fifty.json").fifty
    gate = LatencyResult.read(RESULTS / "digits-int8-cpu.json")
    assert found is not None, "the published result has this part"
    assert gate.server_use is not None
    shared, steps = found.layouts["shared_decode"], found.layouts["steps"]
    peak = gate.server_use.peak_rss_mib
    return [
        _row("50 classifiers, memory, by the gate's peak of one server", 50 * peak, steps.among.memory_mib, "MiB"),
        _row(
            "50 classifiers, memory, by the study of fifty",
            shared.alone.memory_mib + 49 * shared.memory_mib_of_each_additional,
            shared.among.memory_mib,
            "MiB",
            independent=False,
        ),
        _row("one of 50 classifiers at 20/s, P99, at most", 50.0, shared.among.p99_ms, "ms"),
    ]


def _gateway() -> list[MeasuredBox]:
    found = GatewayResult.read(RESULTS / "gateway.json")
    return [
        _row(f"{found.load:.0%} of the capacity, P99, at most", found.limit_ms, found.p99_ms["direct"], "ms"),
        _row("the same behind a gateway, P99, at most", found.limit_ms, found.p99_ms["gateway"], "ms"),
    ]


def _queueing(rng: np.random.Generator, requests: int) -> list[MeasuredBox]:
    """Compare P99 of the digits at every rate of a search with that of a queue with the measured processor time."""
    rows = []
    found = CapacityResult.read(RESULTS / "digits-capacity-cpu.json")
    for rung in found.rungs:
        cores, rate = found.machine.cores, rung.rate_per_s
        assert rung.server_use is not None, "the published search counted it"
        service_ms = 1000 * rung.server_use.cpu_cores / rung.achieved_per_s
        traffic = Traffic(np.array([[rate]]), np.array([[service_ms]]), cores)
        p99 = float(p99_ms(served(traffic, rng, requests=requests, discipline="queue"))[0])
        what = f"digits at {rate:.0f}/s, {'verdict' if rung.confirms else 'search'}, P99 by a simulated queue"
        rows.append(_row(what, p99, rung.latency.p99_ms, "ms"))
    return rows
