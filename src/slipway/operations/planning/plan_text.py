"""A plan in lines of text: the allocation as a table in Markdown, then its arithmetic."""

from collections.abc import Iterator

from slipway.contract.prices import HOURS_A_MONTH
from slipway.operations.planning.fleet_plan import FleetPlan, PlannedCell, PlannedLoad
from slipway.pages.wording import figures

MOST_LOADS = 6
"""Loads of a cell whose arithmetic is shown; --json has the others."""
MOST_CELLS = 10
"""Cells whose arithmetic is shown."""

MOST_NOTES = 10
LEAST = 1e-4
"""Relative gap of the solver's bound."""


def plan_lines(plan: FleetPlan) -> Iterator[str]:
    yield from _summary(plan)
    yield ""
    yield "| cell | boxes | serves | peak, images/s | of a box's capacity | with one down | memory | bottleneck |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for number, cell in enumerate(plan.cells, 1):
        yield _row(number, cell)
    for number, cell in enumerate(plan.cells[:MOST_CELLS], 1):
        yield ""
        yield from _arithmetic(number, cell, plan)
    if len(plan.cells) > MOST_CELLS:
        yield ""
        yield f"cells {MOST_CELLS + 1} to {len(plan.cells)}: --json has their figures"
    yield ""
    yield from _cost(plan)
    yield from (f"note: {note}" for note in plan.notes[:MOST_NOTES])
    if len(plan.notes) > MOST_NOTES:
        yield f"note: {len(plan.notes) - MOST_NOTES:,} more in --json"


def _summary(plan: FleetPlan) -> Iterator[str]:
    kinds: dict[str, int] = {}
    for cell in plan.cells:
        kinds[cell.machine] = kinds.get(cell.machine, 0) + cell.boxes
    boxes = ", ".join(f"{count} x {name}" for name, count in kinds.items())
    spare = "any one box may fail" if plan.n_plus_one else "no spare box"
    yield (
        f"{plan.boxes} box{'es' * (plan.boxes > 1)}: {boxes}; for {figures(plan.peak_per_s)} images/s at peak, P99 "
        f"within {plan.limit_ms:g} ms, {plan.head_room:.0%} head-room, {spare}"
    )


def _row(number: int, cell: PlannedCell) -> str:
    names = ", ".join(_title(load) for load in cell.loads[:3])
    more = f" and {len(cell.loads) - 3:,} more" if len(cell.loads) > 3 else ""
    down, peak = cell.share_of_box_one_down, sum(load.peak_per_s for load in cell.loads)
    return (
        f"| {number} | {cell.boxes} x {cell.machine} | {names}{more} | {figures(peak)} | "
        f"{cell.share_of_box:.0%} | {'no answers' if down is None else f'{down:.0%}'} | {cell.memory_mib:,.0f} of "
        f"{cell.memory_usable_mib:,.0f} MiB | {cell.bottleneck} |"
    )


def _title(load: PlannedLoad) -> str:
    return load.name if load.heads is None else f"{load.name} ({load.heads:,} head{'s' * (load.heads != 1)})"


def _arithmetic(number: int, cell: PlannedCell, plan: FleetPlan) -> Iterator[str]:
    yield f"cell {number}, on {cell.machine}:"
    for load in cell.loads[:MOST_LOADS]:
        at = load.utilisation_at_capacity
        used = f", where the processor is {at:.0%} busy" if at is not None else ""
        yield (
            f"  {_title(load)}: {figures(load.peak_per_s)} of {load.capacity_per_s:.1f} images/s{used} = "
            f"{load.share:.3f} of a box; {load.capacity_from}"
        )
    if len(cell.loads) > MOST_LOADS:
        rest = cell.loads[MOST_LOADS:]
        yield f"  {len(rest):,} more: {sum(load.share for load in rest):.3f} of a box in all"
    if len({load.utilisation_at_capacity for load in cell.loads}) > 1:
        known = [at for load in cell.loads if (at := load.utilisation_at_capacity) is not None]
        yield (
            f"  shares weighted by that processor use over the smallest, {min(known):.0%}, at which the most sensitive "
            f"holds its P99: {cell.share:.3f} of a box"
        )
    yield from _boxes(cell, plan)
    yield from _memory(cell, plan)
    yield from _failure(cell)


def _boxes(cell: PlannedCell, plan: FleetPlan) -> Iterator[str]:
    room = 1 - plan.head_room
    yield f"  boxes for the rates: {cell.share:.3f} / {room:.2f} = {cell.share / room:.2f}, rounded up"
    if plan.n_plus_one:
        yield f"  boxes with one down: {cell.share:.3f} + 1 = {cell.share + 1:.2f}, rounded up, and at least 2"
    yield f"  the larger: {cell.boxes}"


def _memory(cell: PlannedCell, plan: FleetPlan) -> Iterator[str]:
    own = sum(load.memory_mib for load in cell.loads)
    yield (
        f"  memory of each box: {own:,.0f} MiB of its loads + {cell.memory_mib - own:,.0f} MiB that they share = "
        f"{cell.memory_mib:,.0f} MiB; usable with {plan.head_room:.0%} free: {cell.memory_usable_mib:,.0f} MiB"
    )
    for about in sorted({load.memory_from for load in cell.loads})[:MOST_LOADS]:
        yield f"    {about}"


def _failure(cell: PlannedCell) -> Iterator[str]:
    ready = "an unmeasured time (slipway serve prints it)" if cell.ready_s is None else f"{cell.ready_s:.0f} s"
    down = cell.share_of_box_one_down
    if down is None:
        yield f"  if the box fails: no answers for these until another has started, {ready} after its start"
        return
    others = "the other box takes" if cell.boxes == 2 else f"the {cell.boxes - 1} others take"
    over = "" if down <= 1 else ": over the capacity, and P99 over the limit at peak"
    yield f"  if one fails: {others} {down:.0%} of the measured capacity each at peak{over}"
    yield f"    a new box answers after {ready}"


def _cost(plan: FleetPlan) -> Iterator[str]:
    unit, an_hour = plan.currency, _price(plan.per_hour)
    terms = " + ".join(f"{cell.boxes} x {_price(cell.per_hour / cell.boxes)}" for cell in plan.cells[:MOST_CELLS])
    dots = " + ..." if len(plan.cells) > MOST_CELLS else ""
    month = f"{plan.per_month:,.2f} a month of {HOURS_A_MONTH} hours"
    yield f"cost: {terms}{dots} = {an_hour} {unit} an hour, {month}"
    yield (
        f"  a million images: {an_hour} / ({figures(plan.mean_per_s)} images/s * 3600) * 1,000,000 = "
        f"{figures(plan.per_million, 2)} {unit} at the mean rates"
    )
    gap = plan.per_hour / plan.least_per_hour - 1
    this = "this is the least possible" if gap < LEAST else f"this is at most {gap:.1%} above it"
    yield f"  bound: loads divided at will over whole boxes cost {_price(plan.least_per_hour)} {unit} an hour; {this}"


def _price(value: float) -> str:
    """A price in so many digits that printed sums are right: 0.54, 0.0372, 1,240.5."""
    return f"{value:,.8g}"
