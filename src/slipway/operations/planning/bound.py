"""The price that no allocation can be under: a relaxation in which loads are divided at will over whole boxes."""

from collections.abc import Sequence

import numpy as np

from slipway.operations.planning.cells import Offer, boxes_for
from slipway.operations.planning.program import Program
from slipway.operations.planning.workload import Load

NODES = 300


def bound(loads: Sequence[Load], offers: Sequence[Offer]) -> float:
    """Price of an hour.

    Of each kind of machine: B boxes in K cells, whole numbers; z, the part of a load that is on this kind, need not be
    whole. Every allocation into cells fulfils, summed over its cells of a kind, with a the share of a box by itself:

        sum(a z) <= (1 - head_room) B        sum(a z) + K <= B (N+1)        boxes_for(0) K <= B
        sum(own memory z) <= usable memory K

    Weights for sensitivity, and memory that loads share, only add to it. So the solver's dual bound is a bound.
    """
    demand, count, kinds = offers[0].demand, len(loads), len(offers)
    boxes, cells = range(kinds), range(kinds, 2 * kinds)
    parts = np.arange(2 * kinds, (2 + count) * kinds).reshape(count, kinds)
    program = Program((2 + count) * kinds)
    for kind, offer in enumerate(offers):
        b, k = boxes[kind], cells[kind]
        program.price[b] = offer.per_hour
        program.whole[[b, k]] = 1
        shares, memory = {}, {}
        for place, (load, capacity) in enumerate(zip(loads, offer.capacities, strict=True)):
            part = int(parts[place, kind])
            program.upper[part] = 1.0 if capacity else 0.0
            shares[part] = load.peak_per_s / capacity.per_s if capacity else 0.0
            memory[part] = load.own_mib
        program.constrain(shares | {b: demand.head_room - 1}, largest=0)
        if demand.n_plus_one:
            program.constrain(shares | {b: -1.0, k: 1.0}, largest=0)
        program.constrain({k: float(boxes_for(0.0, demand)), b: -1.0}, largest=0)
        program.constrain(memory | {k: -offer.usable_mib}, largest=0)
    for place in range(count):
        program.constrain(dict.fromkeys(parts[place].tolist(), 1.0), least=1, largest=1)
    program.constrain(dict.fromkeys(cells, 1.0), least=1)
    least = program.solve(nodes=NODES).mip_dual_bound
    assert least is not None, "each load fits on some machine, so the relaxation has a solution"
    return float(least)
