"""`plan_fleet`: the machines, their number and classifiers, the cost, and the effect of a lost box."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.contract.fleet import Fleet
from slipway.contract.prices import HOURS_A_MONTH, cost_per_million
from slipway.contract.typed_file import Contract
from slipway.operations.planning.bound import bound
from slipway.operations.planning.cells import Cell, offers_of
from slipway.operations.planning.demand import Demand
from slipway.operations.planning.pack import ordered, pack, price_of
from slipway.operations.planning.workload import Load, loads_of, notes_of

PROCESSOR_BOUND = 0.9
"""Processor use at the capacity from which the processor, and not the tail of the waiting time, is the limit."""


class PlannedLoad(Contract):
    """A classifier, or a base with its heads, in a cell."""

    name: str
    heads: int | None
    mean_per_s: float
    peak_per_s: float
    capacity_per_s: float
    """Images a second on one box by itself, within the limit on P99."""
    capacity_from: str
    processor_ms: float | None
    """Processor time of an image."""
    utilisation_at_capacity: float | None
    """Processor use of a box at the capacity, between 0 and 1."""
    share: float
    """Peak as a share of one box's capacity."""
    memory_mib: float
    """Memory that it adds to each box of the cell."""
    memory_shared_mib: float
    """Memory that the loads of its source share on a box."""
    memory_from: str
    ready_s: float | None
    """Seconds until a server of this load alone answers; None if it was not measured."""


class PlannedCell(Contract):
    """Boxes of one kind that all serve the same loads."""

    machine: str
    boxes: int
    loads: tuple[PlannedLoad, ...]
    share: float
    """Total peak as a share of one box's capacity within the limit."""
    share_of_box: float
    """Peak of each box, as a share of its capacity, with every box up."""
    share_of_box_one_down: float | None
    """Peak of each box with one box down, as a share of its capacity; None if the cell has one box."""
    memory_mib: float
    """Memory that each box needs."""
    memory_usable_mib: float
    """Memory of a box without its head-room."""
    ready_s: float | None
    """Seconds until a new box of the cell answers for all loads; None if a part was not measured."""
    bottleneck: str
    per_hour: float


class FleetPlan(Contract):
    """The whole plan, and its bound."""

    boxes: int
    cells: tuple[PlannedCell, ...]
    per_hour: float
    per_month: float
    per_million: float
    """Cost of a million images at the mean rates."""
    mean_per_s: float
    peak_per_s: float
    currency: str
    limit_ms: float
    head_room: float
    n_plus_one: bool
    least_per_hour: float
    """Lower bound of the cost per hour, from loads divided at will over whole boxes; no allocation into cells costs
    less."""
    notes: tuple[str, ...]


def plan_fleet(fleet: Fleet, demand: Demand, *, root: Path, measured_root: Path) -> FleetPlan:
    """Plan the boxes of a fleet.

    Args:
        root: folder that the fleet file's paths are relative to.
        measured_root: folder that the names of result files are relative to.

    Raises:
        SpecError: as `loads_of` and `pack`.
    """
    loads = loads_of(fleet, demand, root=root, measured_root=measured_root)
    return plan_loads(loads, demand, notes=tuple(notes_of(loads, fleet, demand)))


def plan_loads(loads: Sequence[Load], demand: Demand, *, notes: tuple[str, ...] = ()) -> FleetPlan:
    """Plan the boxes of these loads.

    Raises:
        SpecError: a load fits on no machine.
    """
    offers = offers_of(loads, demand)
    cells = ordered(pack(loads, offers))
    per_hour, mean = price_of(cells), sum(load.mean_per_s for load in loads)
    return FleetPlan(
        boxes=sum(cell.boxes for cell in cells),
        cells=tuple(_planned(cell, others=[other for other in cells if other is not cell]) for cell in cells),
        per_hour=per_hour,
        per_month=per_hour * HOURS_A_MONTH,
        per_million=cost_per_million(per_hour, images_per_s=mean),
        mean_per_s=mean,
        peak_per_s=sum(load.peak_per_s for load in loads),
        currency=demand.currency,
        limit_ms=demand.limit_ms,
        head_room=demand.head_room,
        n_plus_one=demand.n_plus_one,
        least_per_hour=bound(loads, offers),
        notes=(*notes, *_kept_apart(cells)),
    )


def _planned(cell: Cell, *, others: Sequence[Cell]) -> PlannedCell:
    boxes = cell.boxes
    return PlannedCell(
        machine=cell.offer.name,
        boxes=boxes,
        loads=tuple(_planned_load(cell, place) for place in cell.places),
        share=cell.share,
        share_of_box=cell.share / boxes,
        share_of_box_one_down=cell.share / (boxes - 1) if boxes > 1 else None,
        memory_mib=cell.memory_mib,
        memory_usable_mib=cell.offer.usable_mib,
        ready_s=_ready_s(cell),
        bottleneck=_bottleneck(cell, others),
        per_hour=cell.per_hour,
    )


def _planned_load(cell: Cell, place: int) -> PlannedLoad:
    load, capacity = cell.loads[place], cell.offer.capacities[place]
    assert capacity is not None
    ready = load.figures.ready
    return PlannedLoad(
        name=load.name,
        heads=load.heads,
        mean_per_s=load.mean_per_s,
        peak_per_s=load.peak_per_s,
        capacity_per_s=capacity.per_s,
        capacity_from=capacity.about,
        processor_ms=capacity.processor_ms,
        utilisation_at_capacity=cell.offer.utilisation(place),
        share=load.peak_per_s / capacity.per_s,
        memory_mib=load.own_mib,
        memory_shared_mib=load.memory.shared_mib,
        memory_from=load.memory.about,
        ready_s=ready.shared_s + ready.each_s * (load.heads or 1) if ready else None,
    )


def _ready_s(cell: Cell) -> float | None:
    """The parts that are shared once, and each load's own, one after the other."""
    shared: dict[str, float] = {}
    own_s = 0.0
    for place in cell.places:
        load = cell.loads[place]
        if (ready := load.figures.ready) is None:
            return None
        shared[load.shares] = ready.shared_s
        own_s += ready.each_s * (load.heads or 1)
    return own_s + sum(shared.values())


def _bottleneck(cell: Cell, others: Sequence[Cell]) -> str:
    """Return the resource that would have to grow for fewer boxes: memory, N+1, processor or P99."""
    demand = cell.offer.demand
    by_rate = cell.share / (1 - demand.head_room)
    if by_rate <= cell.boxes - 1 or (by_rate < 0.5 and others):  # the rates alone would need fewer boxes
        least_mib = min((other.own_mib for other in others), default=0.0)
        return "memory" if cell.memory_mib + least_mib > cell.offer.usable_mib else "N+1"
    rho = [value for place in cell.places if (value := cell.offer.utilisation(place)) is not None]
    return "processor" if rho and min(rho) >= PROCESSOR_BOUND else "P99"


def _kept_apart(cells: Sequence[Cell]) -> Iterator[str]:
    unknown = sorted({c.loads[c.places[0]].name for c in cells if c.least_rho is None})
    if len(cells) > 1 and unknown:
        limit = cells[0].offer.demand.limit_ms
        yield (
            f"{', '.join(unknown)}: the processor time of an image was not measured, so no box mixes it with loads of "
            "other figures; slipway gate NAME --images FOLDER --pid PID measures it, with --limit-ms " + f"{limit:g}"
        )
