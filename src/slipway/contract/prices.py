"""Prices of machines, and the cost of a million images.

    cost per million = price per hour / (images per second * 3600) * 1,000,000

Prices are examples in a file for its reader to edit. A cost has two significant figures, as a price does.
"""

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from pydantic import Field

from slipway.contract.typed_file import Contract
from slipway.errors import SpecError

HOURS_A_MONTH = 730
"""Hours of an average month, 365 * 24 / 12."""


class Price(Contract):
    """The price of one kind of machine."""

    per_hour: Annotated[float, Field(ge=0.0001, le=1_000_000_000)]
    """The price of an hour, in the currency of the file."""
    as_of: date
    """Day on which the price was looked up, such as 2026-01-01."""
    cores: Annotated[int, Field(ge=1)]
    """Number of vCPUs, as the provider counts them."""
    gpu: str | None = None
    """GPU of the machine in words, such as `one T4`. It only informs the reader."""
    note: str = ""
    """A remark on the price. It only informs the reader."""


class Prices(Contract):
    """`prices.yaml`."""

    currency: str
    """Currency of all prices in the file, such as `USD`."""
    note: str
    """A note shown with every cost."""
    machines: dict[str, Price]
    """Price of each machine, by the name that `slipway speed --price` takes."""

    def row(self, name: str) -> "Priced":
        """Raises SpecError: no such machine; the message lists the valid names."""
        if name not in self.machines:
            raise SpecError(f"unknown price {name!r}; the valid names are {', '.join(self.machines)}; or add yours")
        price = self.machines[name]
        about = f"{name}, as of {price.as_of}{f', with {price.gpu}' if price.gpu else ''}. {self.note} {price.note}"
        return Priced(about.strip(), price.per_hour, self.currency, price.cores)


@dataclass(frozen=True)
class Priced:
    """The chosen price."""

    about: str
    per_hour: float
    currency: str
    cores: int | None
    """Number of vCPUs; None where the price was given as a number."""


def cost_per_million(per_hour: float, *, images_per_s: float) -> float:
    return per_hour / (images_per_s * 3600) * 1e6
