"""The rule of a cell: how many boxes of one kind serve some loads within the limit, with head-room and one box down.

All boxes of a cell serve the same repository, and a gateway divides the requests over them. With

    c_i    images a second of load i within the P99 limit, measured on one box by itself
    rho_i  processor use of that box at c_i: c_i * processor time / cores
    r_i    peak of load i

a cell of m boxes needs    S = sum(r_i / c_i * rho_i / min(rho)) <= m * (1 - head_room)    with every box up, and
S <= m - 1 with one down. In words: the boxes may be as busy as the most sensitive classifier was when its own P99 was
shown to be within the limit. For equal classifiers S is the sum of the shares r_i / c_i. Requests wait in one queue
for the cores: a faster classifier waits no longer than that one and needs less time itself (docs/planning.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from slipway.operations.planning.demand import Demand, PricedMachine
from slipway.operations.planning.measured import Capacity
from slipway.operations.planning.workload import Load

ROUNDING = 1e-9


@dataclass(frozen=True)
class Offer:
    """A kind of machine, and the capacity of each load on it."""

    name: str
    machine: PricedMachine
    demand: Demand
    capacities: tuple[Capacity | None, ...]
    """Capacity of the machine for each load, in the order of the loads; None where none was measured."""

    @property
    def usable_mib(self) -> float:
        return self.machine.memory_gib * 1024 * (1 - self.demand.head_room)

    @property
    def per_hour(self) -> float:
        return self.machine.per_hour

    def utilisation(self, place: int) -> float | None:
        """Processor use of a box at a load's capacity, between 0 and 1; None if it was not measured."""
        capacity = self.capacities[place]
        if capacity is None or capacity.processor_ms is None:
            return None
        return capacity.per_s * capacity.processor_ms / 1000 / capacity.cores


def boxes_for(share: float, demand: Demand) -> int:
    """Number of boxes for a total share of one box's capacity."""
    boxes = max(1, math.ceil(share / (1 - demand.head_room) - ROUNDING))
    return max(boxes, 2, math.ceil(share + 1 - ROUNDING)) if demand.n_plus_one else boxes


@dataclass
class Cell:
    """Loads that are served together by some boxes of one kind."""

    offer: Offer
    loads: Sequence[Load]
    """Every load of the plan."""
    places: list[int] = field(default_factory=list)
    """Places in `loads` of those in this cell."""
    plain: float = 0.0
    """Sum of r / c."""
    busy: float = 0.0
    """Sum of r / c * rho."""
    least_rho: float | None = math.inf
    """Least processor use of the loads at their capacity; None as soon as one is unknown."""
    measured: set[Capacity] = field(default_factory=set)
    own_mib: float = 0.0
    shared_mib: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """S: the peak as a share of one box's capacity."""
        if self.least_rho is None or len(self.measured) <= 1:
            return self.plain
        return self.busy / self.least_rho

    @property
    def memory_mib(self) -> float:
        return self.own_mib + sum(self.shared_mib.values())

    @property
    def boxes(self) -> int:
        return boxes_for(self.share, self.offer.demand)

    @property
    def per_hour(self) -> float:
        return self.boxes * self.offer.per_hour

    def saves_without(self, place: int) -> bool:
        """Whether the cell may need fewer boxes without this load."""
        load, capacity, rho = self.loads[place], self.offer.capacities[place], self.offer.utilisation(place)
        assert capacity is not None
        if len(self.measured) == 1 or not rho or not self.least_rho:
            weight = 1.0
        elif rho == self.least_rho and sum(self.offer.utilisation(other) == rho for other in self.places) == 1:
            return True  # the others are less sensitive
        else:
            weight = rho / self.least_rho
        return boxes_for(self.share - weight * load.peak_per_s / capacity.per_s, self.offer.demand) < self.boxes

    def with_load(self, place: int) -> "Cell | None":
        """This cell with one more load; None if its memory or its figures do not allow it."""
        larger = replace(self, places=[*self.places], measured={*self.measured}, shared_mib={**self.shared_mib})
        return larger if larger.take(place) else None

    def take(self, place: int) -> bool:
        """Add a load; False, with the cell spoilt, if its memory or its figures do not allow it."""
        load, capacity, rho = self.loads[place], self.offer.capacities[place], self.offer.utilisation(place)
        if capacity is None:
            return False
        self.measured.add(capacity)
        self.least_rho = None if rho is None or self.least_rho is None else min(rho, self.least_rho)
        if self.least_rho is None and len(self.measured) > 1:
            return False  # how these disturb one another is unknown
        self.places.append(place)
        self.plain += load.peak_per_s / capacity.per_s
        self.busy += load.peak_per_s / capacity.per_s * (rho or 0.0)
        self.own_mib += load.own_mib
        self.shared_mib[load.shares] = max(load.memory.shared_mib, self.shared_mib.get(load.shares, 0.0))
        return self.memory_mib <= self.offer.usable_mib + ROUNDING


def cell_of(offer: Offer, loads: Sequence[Load], places: Sequence[int]) -> Cell | None:
    """A cell of these loads; None if they do not fit on such a machine."""
    cell = Cell(offer, loads)
    return cell if all(cell.take(place) for place in places) else None


def offers_of(loads: Sequence[Load], demand: Demand) -> list[Offer]:
    return [
        Offer(name, machine, demand, tuple(load.capacity_on(machine, demand) for load in loads))
        for name, machine in demand.machines.items()
    ]
