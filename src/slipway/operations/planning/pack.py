"""Packs loads into cells at the least price, and bounds what any packing must cost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from slipway.errors import SpecError
from slipway.operations.planning.cells import ROUNDING, Cell, Offer, boxes_for, cell_of
from slipway.operations.planning.exact import improved
from slipway.operations.planning.workload import Load, remedy

MOST_MOVES = 20_000
"""Largest product of loads and cells for which single loads are moved."""
MOST_CELLS = 60
"""Largest number of cells whose pairs are merged."""


def pack(loads: Sequence[Load], offers: Sequence[Offer]) -> list[Cell]:
    """The cheapest of several packings.

    First each kind of machine in turn is the one to open, and loads go, the largest first, where the price rises least;
    then cells change their kind, merge, and give loads away while that is cheaper. Small plans are also given to a
    solver of mixed-integer programs.

    Raises:
        SpecError: a load fits on no machine; the message has what it needs.
    """
    _check_each_fits(loads, offers)
    found = [_cheaper(_greedy(loads, offers, first), offers) for first in offers]
    best = min(found, key=price_of)
    exact = improved(loads, offers, best)
    return exact if exact and price_of(exact) < price_of(best) - ROUNDING else best


def price_of(cells: Sequence[Cell]) -> float:
    """Price of an hour."""
    return sum(cell.per_hour for cell in cells)


def bound(loads: Sequence[Load], offers: Sequence[Offer]) -> tuple[float, str]:
    """A price of an hour that no allocation into cells can be under, and the reason for it.

    Each bound relaxes the plan: loads are divided at will, each on the machine that is cheapest for it.
    """
    demand = offers[0].demand
    cheapest = min(offer.per_hour for offer in offers)
    rate = sum(min(_rate_price(load, place, offers)) for place, load in enumerate(loads))
    memory_mib = sum(load.own_mib for load in loads) + max(load.memory.shared_mib for load in loads)
    cells = max(1, math.ceil(memory_mib / max(offer.usable_mib for offer in offers) - ROUNDING))
    least_boxes = boxes_for(0.0, demand)
    per_mib = min(offer.per_hour / offer.usable_mib for offer in offers)
    found = [
        (rate / (1 - demand.head_room), "rates with head-room"),
        (least_boxes * cells * cheapest, f"memory: {cells} cell{'s' * (cells > 1)} of {least_boxes} or more"),
        (least_boxes * memory_mib * per_mib, "memory"),
    ]
    if demand.n_plus_one:
        found.append((rate + cells * cheapest, "rates with one box of each cell down"))
    price, reason = max(found)
    if len(offers) == 1:
        price = cheapest * math.ceil(price / cheapest - ROUNDING)
    return price, reason


def _rate_price(load: Load, place: int, offers: Sequence[Offer]) -> Iterator[float]:
    for offer in offers:
        if capacity := offer.capacities[place]:
            yield offer.per_hour * load.peak_per_s / capacity.per_s


def _check_each_fits(loads: Sequence[Load], offers: Sequence[Offer]) -> None:
    for place, load in enumerate(loads):
        if any(cell_of(offer, loads, [place]) for offer in offers):
            continue
        demand = offers[0].demand
        need = load.own_mib + load.memory.shared_mib
        have = ", ".join(
            f"{offer.name} {offer.usable_mib:,.0f} MiB"
            + ("" if offer.capacities[place] else " (but nobody measured its capacity there)")
            for offer in offers
        )
        unmeasured = any(offer.capacities[place] is None for offer in offers)
        more = f"; {remedy(load.name, demand)}" if unmeasured else ""
        raise SpecError(
            f"{load.title}: needs {need:,.0f} MiB, more than every machine has with {demand.head_room:.0%} of its "
            f"memory free ({have}); offer a machine of {need / 1024 / (1 - demand.head_room):.1f} GiB or more{more}"
        )


def _greedy(loads: Sequence[Load], offers: Sequence[Offer], first: Offer) -> list[Cell]:
    order = sorted(range(len(loads)), key=lambda place: -(loads[place].own_mib + loads[place].memory.shared_mib))
    cells: list[Cell] = []
    for place in order:
        candidates = [
            (larger.per_hour - cell.per_hour, number, larger)
            for number, cell in enumerate(cells)
            if (larger := cell.with_load(place))
        ]
        opened = [cell for offer in (first, *offers) if (cell := cell_of(offer, loads, [place]))]
        new = opened[0] if opened[0].offer is first else min(opened, key=lambda cell: cell.per_hour)
        candidates.append((new.per_hour, len(cells), new))
        _, number, chosen = min(candidates, key=lambda candidate: candidate[:2])
        cells[number : number + 1] = [chosen]
    return cells


def _cheaper(cells: list[Cell], offers: Sequence[Offer]) -> list[Cell]:
    """Change kinds, merge cells and move loads until nothing gets cheaper."""
    while True:
        before = price_of(cells)
        cells = [_best_kind(cell, offers) for cell in cells]
        if len(cells) <= MOST_CELLS:
            cells = _merged(cells, offers)
        if len(cells) > 1 and len(cells) * len(cells[0].loads) <= MOST_MOVES:
            cells = _moved(cells)
        if price_of(cells) > before - ROUNDING:
            return cells


def _best_kind(cell: Cell, offers: Sequence[Offer]) -> Cell:
    others = [other for offer in offers if (other := cell_of(offer, cell.loads, cell.places))]
    return min([cell, *others], key=lambda one: one.per_hour)


def _merged(cells: list[Cell], offers: Sequence[Offer]) -> list[Cell]:
    for one, other in combinations(range(len(cells)), 2):
        places = [*cells[one].places, *cells[other].places]
        joined = [cell for offer in offers if (cell := cell_of(offer, cells[0].loads, places))]
        best = min(joined, key=lambda cell: cell.per_hour, default=None)
        if best and best.per_hour < cells[one].per_hour + cells[other].per_hour - ROUNDING:
            rest = [cell for number, cell in enumerate(cells) if number not in (one, other)]
            return _merged([*rest, best], offers)
    return cells


def _moved(cells: list[Cell]) -> list[Cell]:
    cells = list(cells)
    for source in range(len(cells)):
        for place in list(cells[source].places):
            rest = [other for other in cells[source].places if other != place]
            left = cell_of(cells[source].offer, cells[source].loads, rest)
            for target in range(len(cells)):
                larger = cells[target].with_load(place) if target != source and left else None
                if not larger or not left:
                    continue
                spent = larger.per_hour + (left.per_hour if rest else 0.0)
                if spent < cells[source].per_hour + cells[target].per_hour - ROUNDING:
                    cells[source], cells[target] = left, larger
                    break
    return [cell for cell in cells if cell.places]


def ordered(cells: Sequence[Cell]) -> list[Cell]:
    """Cells with their loads in the order of the fleet file."""
    return sorted((replace(cell, places=sorted(cell.places)) for cell in cells), key=lambda cell: cell.places[0])
