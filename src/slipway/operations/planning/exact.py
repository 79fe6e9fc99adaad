"""Small plans as a mixed-integer program."""

from collections.abc import Sequence

import numpy as np

from slipway.operations.planning.cells import Cell, Offer, boxes_for, cell_of
from slipway.operations.planning.program import Array, Program
from slipway.operations.planning.workload import Load

MOST_CHOICES = 400
"""Largest product of loads, cells and kinds of machine that is given to the solver."""
NODES = 300


def improved(loads: Sequence[Load], offers: Sequence[Offer], found: Sequence[Cell]) -> list[Cell] | None:
    """A packing into as many cells as `found` or fewer; None if the plan is too large, or the solver found none.

    Shares are counted as if the most sensitive load were in every cell, and the memory that loads share is set aside in
    every cell. So an answer always fits; its price is computed anew from its cells.
    """
    count, cells, kinds = len(loads), len(found), len(offers)
    if cells < 2 or count * cells * kinds > MOST_CHOICES:
        return None
    shares = _shares(loads, offers)
    if shares is None:
        return None
    x = _solve(loads, offers, shares, cells)
    if x is None:
        return None
    packed = []
    for cell in range(cells):
        places = [place for place in range(count) if x[place, cell] > 0.5]
        kinds_found = [made for offer in offers if places and (made := cell_of(offer, loads, places))]
        if places and not kinds_found:
            return None
        packed += [min(kinds_found, key=lambda made: made.per_hour)] if places else []
    return packed


def _shares(loads: Sequence[Load], offers: Sequence[Offer]) -> Array | None:
    """Capacities `[loads, kinds]`; NaN if one was not measured. None if loads of unknown processor time would mix."""
    shares = np.full((len(loads), len(offers)), np.nan)
    for kind, offer in enumerate(offers):
        measured = {capacity for capacity in offer.capacities if capacity}
        rho = [offer.utilisation(place) for place in range(len(loads))]
        known = [value for value in rho if value is not None]
        if len(measured) > 1 and any(c and c.processor_ms is None for c in offer.capacities):
            return None
        for place, (load, capacity) in enumerate(zip(loads, offer.capacities, strict=True)):
            if capacity:
                own = rho[place]
                times = own / min(known) if own is not None and len(measured) > 1 else 1.0
                shares[place, kind] = load.peak_per_s / capacity.per_s * times
    return shares


def _solve(loads: Sequence[Load], offers: Sequence[Offer], shares: Array, cells: int) -> Array | None:
    """Return the cell of each load as BOOL `[loads, cells]`; None without a solution.

    Variables: x (load in cell), y (cell is of a kind), m (boxes of a kind in a cell).
    """
    demand, count, kinds = offers[0].demand, len(loads), len(offers)
    unknown = np.isnan(shares)
    shares = np.where(unknown, 0.0, shares)
    most = boxes_for(float(shares.sum(axis=0).max()), demand) + 1
    set_aside = sum({load.shares: load.memory.shared_mib for load in loads}.values())
    size = (count + 2 * kinds) * cells
    x_of, y_of, m_of = np.split(np.arange(size), [count * cells, (count + kinds) * cells])
    x_of, y_of, m_of = x_of.reshape(count, cells), y_of.reshape(cells, kinds), m_of.reshape(cells, kinds)
    program = Program(size)
    program.whole[:], program.upper[:], program.upper[m_of] = 1, 1, most
    program.price[m_of] = [offer.per_hour for offer in offers]
    for place in range(count):
        program.constrain(dict.fromkeys(x_of[place].tolist(), 1.0), least=1, largest=1)
    for cell in range(cells):
        program.constrain(dict.fromkeys(y_of[cell].tolist(), 1.0), largest=1)
        memory = {int(x_of[place, cell]): load.own_mib for place, load in enumerate(loads)}
        usable = {int(y_of[cell, kind]): set_aside - offer.usable_mib for kind, offer in enumerate(offers)}
        program.constrain(memory | usable, largest=0)
        for kind in range(kinds):
            share = {int(x_of[place, cell]): float(shares[place, kind]) for place in range(count)}
            y, m, total = int(y_of[cell, kind]), int(m_of[cell, kind]), float(shares[:, kind].sum())
            program.constrain(share | {m: demand.head_room - 1, y: total}, largest=total)
            if demand.n_plus_one:
                program.constrain(share | {m: -1.0, y: total + 1}, largest=total)
            program.constrain({m: 1.0, y: -float(boxes_for(0.0, demand))}, least=0)
            program.constrain({m: 1.0, y: -float(most)}, largest=0)
            for place in np.flatnonzero(unknown[:, kind]):
                program.constrain({int(x_of[place, cell]): 1.0, y: 1.0}, largest=1)
    x = program.solve(nodes=NODES).x
    return None if x is None else np.asarray(x)[x_of]
