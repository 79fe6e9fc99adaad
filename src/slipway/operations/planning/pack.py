"""Packs loads into cells at the least price."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from slipway.errors import SpecError
from slipway.operations.planning.cells import ROUNDING, Cell, Offer, cell_of
from slipway.operations.planning.exact import improved
from slipway.operations.planning.workload import Load, remedy

MOST_BOXES = (math.inf, 3, 4)
"""Largest numbers of boxes of a cell that are tried: with N+1, three boxes may be used to 67 %, and four to 70 %."""
MOST_CELLS = 60
"""Largest number of cells whose pairs are merged."""


def pack(loads: Sequence[Load], offers: Sequence[Offer]) -> list[Cell]:
    """The cheapest of several packings.

    First each kind of machine in turn is the one to open, and loads go, the largest first, where the price rises least:
    with all others or with those of equal figures alone, in cells of any number of boxes or of few. Then cells change
    their kind, merge, and give loads away while that is cheaper. Small plans are also given to a solver of
    mixed-integer programs.

    Raises:
        SpecError: a load fits on no machine; the message has what it needs.
    """
    _check_each_fits(loads, offers)
    alike = all(len({*offer.capacities}) == 1 for offer in offers)
    starts = [
        _greedy(loads, offers, first, apart=apart, most_boxes=most_boxes)
        for first in offers
        for apart in ([False] if alike else [False, True])
        for most_boxes in MOST_BOXES
    ]
    best = min((_cheaper(cells, offers) for cells in starts), key=price_of)
    exact = improved(loads, offers, best)
    return exact if exact and price_of(exact) < price_of(best) - ROUNDING else best


def price_of(cells: Sequence[Cell]) -> float:
    """Price of an hour."""
    return sum(cell.per_hour for cell in cells)


def _check_each_fits(loads: Sequence[Load], offers: Sequence[Offer]) -> None:
    for place, load in enumerate(loads):
        if any(cell_of(offer, loads, [place]) for offer in offers):
            continue
        demand = offers[0].demand
        need = load.own_mib + load.memory.shared_mib
        have = ", ".join(
            f"{offer.name} {offer.usable_mib:,.0f} MiB"
            + ("" if offer.capacities[place] else " (but its capacity there was not measured)")
            for offer in offers
        )
        unmeasured = any(offer.capacities[place] is None for offer in offers)
        more = f"; {remedy(load.name, demand)}" if unmeasured else ""
        raise SpecError(
            f"{load.title}: needs {need:,.0f} MiB, more than every machine has with {demand.head_room:.0%} of its "
            f"memory free ({have}); offer a machine of {need / 1024 / (1 - demand.head_room):.1f} GiB or more{more}"
        )


def _greedy(
    loads: Sequence[Load], offers: Sequence[Offer], first: Offer, *, apart: bool, most_boxes: float
) -> list[Cell]:
    order = sorted(range(len(loads)), key=lambda place: -(loads[place].own_mib + loads[place].memory.shared_mib))
    cells: list[Cell] = []
    for place in order:
        candidates = [
            (larger.per_hour - cell.per_hour, number, larger)
            for number, cell in enumerate(cells)
            if (not apart or cell.offer.capacities[place] in cell.measured)
            and (larger := cell.with_load(place))
            and larger.boxes <= most_boxes
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
        cells = _moved(cells)
        if price_of(cells) >= before - ROUNDING:  # also where prices are too large for it to show
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
            if not cells[source].saves_without(place):
                continue
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
