"""`demand.yaml`: the rates of a fleet, the available machines, and the result files with their capacities."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from slipway.contract.prices import Price
from slipway.contract.release import Name
from slipway.contract.typed_file import Contract

MeasuredFile = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
"""A result file, absolute or relative to `demand.yaml`."""


MOST_GIB = 1_000_000
"""Memory of a machine at most, in GiB."""
MOST_PER_S = 1_000_000
"""Images a second that a plan is made for at most."""


class PricedMachine(Price):
    """A kind of machine on offer, with its price."""

    memory_gib: float = Field(gt=0, le=MOST_GIB)
    """Memory of the machine, in GiB."""


class Rates(Contract):
    """Images a second, and the result files with the figures that belong to them."""

    mean: float = Field(gt=0, le=MOST_PER_S)
    """Mean images a second over the month, by which a million images is paid."""
    peak: float = Field(gt=0, le=MOST_PER_S)
    """Images a second in the busiest minutes, for which the boxes are counted."""
    measured: tuple[MeasuredFile, ...] = ()
    """Result files in order of preference: a figure comes from the first file that has it."""

    @model_validator(mode="after")
    def _the_peak_is_not_below_the_mean(self) -> Self:
        if self.peak < self.mean:
            raise ValueError(f"peak {self.peak:g} is below mean {self.mean:g}; a peak is at least the mean")
        return self


class BaseRates(Rates):
    """The rates of a base's heads."""

    per_head: bool = False
    """True if the rates are those of each head; otherwise they are those of all heads together."""


class Demand(Contract):
    """`demand.yaml`."""

    limit_ms: float = Field(default=50.0, gt=0)
    """Limit on P99. Figures count if they were measured at this limit or a stricter one."""
    head_room: float = Field(default=0.3, ge=0, le=0.9)
    """Share of each box's measured capacity and memory that stays free while every box is up; at most 0.9, with which a
    fleet takes ten times the boxes."""
    n_plus_one: bool = True
    """True if every classifier must hold its peak within the limit with any one box down."""
    scale_by_cores: bool = False
    """True if a figure of fewer cores may count on a machine with more, in proportion to the cores. This is not
    measured; without it a machine needs figures of its own number of cores."""
    currency: str = "USD"
    """Currency of the machines' prices."""
    machines: dict[str, PricedMachine] = Field(min_length=1)
    """Kinds of machine by name; any number of each can be had."""
    classifiers: dict[Name, Rates] = Field(default={})
    """Rates of whole classifiers, by their names in the fleet file."""
    each: Rates | None = None
    """Rates of every whole classifier that `classifiers` does not name."""
    bases: dict[Name, BaseRates] = Field(default={})
    """Rates of each base's heads, by the base's name in the fleet file."""
