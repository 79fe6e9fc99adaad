"""Makes simulated fleets: classifiers with the capacities that simulated boxes have, and their plans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.studies.plan_fleet.boxes import Array, Discipline, Traffic, p99_ms, served
from slipway.operations.planning.demand import Demand
from slipway.operations.planning.fleet_plan import PlannedCell, plan_loads
from slipway.operations.planning.measured import Capacity, MeasuredFigures, Memory
from slipway.operations.planning.workload import Load

LIMIT_MS = 50.0
SERVICE_MS = np.linspace(4, 20, 9)
"""Mean service times whose capacity is found; those between are interpolated."""
BUSY = np.linspace(0.2, 0.96, 20)
MOST_CLASSIFIERS = 6


@dataclass(frozen=True)
class Fleet:
    """The classifiers of the first cell of a plan."""

    peaks_per_s: Array
    service_ms: Array
    capacity_per_s: Array
    cell: PlannedCell
    cores: int

    @property
    def boxes(self) -> int:
        return self.cell.boxes

    @property
    def share(self) -> float:
        """Return the peak as a share of one box, by the rule."""
        return self.cell.share

    @property
    def plain_share(self) -> float:
        """Return the same share without weights for sensitivity."""
        return float((self.peaks_per_s / self.capacity_per_s).sum())


def capacities(cores: int, rng: np.random.Generator, *, requests: int, discipline: Discipline) -> Array:
    """Find the images a second at which the P99 of one classifier reaches the limit, for each of SERVICE_MS."""
    service, busy = (grid.ravel() for grid in np.meshgrid(SERVICE_MS, BUSY, indexing="ij"))
    traffic = Traffic((busy * cores * 1000 / service)[:, None], service[:, None], cores)
    p99 = p99_ms(served(traffic, rng, requests=requests, discipline=discipline)).reshape(len(SERVICE_MS), len(BUSY))
    held = np.array(
        [BUSY[max(0, int(np.argmax(row > LIMIT_MS)) - 1)] if (row > LIMIT_MS).any() else BUSY[-1] for row in p99]
    )
    return held * cores * 1000 / SERVICE_MS


def planned(cores: int, capacity: Array, rng: np.random.Generator) -> Fleet:
    """Plan with the default settings, and return the first cell, for 2 to 6 classifiers with 1 to 8 boxes' capacity."""
    count = int(rng.integers(2, MOST_CLASSIFIERS + 1))
    service_ms = rng.uniform(SERVICE_MS[0], SERVICE_MS[-1], count)
    held = np.exp(np.interp(service_ms, SERVICE_MS, np.log(capacity)))
    shares = rng.dirichlet(np.full(count, 2.0)) * rng.uniform(1, 8)
    demand = Demand.parse(
        {"machines": {"box": {"cores": cores, "memory_gib": 64, "per_hour": 1, "as_of": "2026-01-01"}}}, source="study"
    )
    loads = [
        _load(str(n), *values, cores) for n, values in enumerate(zip(shares * held, held, service_ms, strict=True))
    ]
    cell = plan_loads(loads, demand).cells[0]
    there = np.array([int(load.name) for load in cell.loads])
    return Fleet((shares * held)[there], service_ms[there], held[there], cell, cores)


def _load(name: str, peak: float, held: float, service_ms: float, cores: int) -> Load:
    memory = Memory(0.0, 100.0, "simulated")
    figures = MeasuredFigures("simulated", (Capacity(held, LIMIT_MS, cores, service_ms, "simulated"),), memory)
    return Load(name, None, peak / 4, peak, figures, memory)


def traffic_of(fleets: Sequence[Fleet], shares_of_peak: Sequence[float]) -> Traffic:
    """Return the traffic of one box of each fleet. The gateway sends it such a share of the whole peak, at random."""
    rates, service = np.zeros((len(fleets), MOST_CLASSIFIERS)), np.ones((len(fleets), MOST_CLASSIFIERS))
    for row, (fleet, share) in enumerate(zip(fleets, shares_of_peak, strict=True)):
        rates[row, : len(fleet.peaks_per_s)] = fleet.peaks_per_s * share
        service[row, : len(fleet.service_ms)] = fleet.service_ms
    return Traffic(rates, service, fleets[0].cores)
