"""The result file of the study."""

from pydantic import ConfigDict

from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Evidence


class Options(Evidence):
    files: int
    """Number of damaged files."""
    seed: int
    photographs: tuple[str, ...]


class Cost(Evidence):
    """Time of the guard for one image."""

    files: int
    median_bytes: float
    median_us: float
    p99_us: float


class Escapes(Evidence):
    """Outcomes of damaged files, and the share that the guard passed and the decoder refused, with its 95 %
    interval."""

    refused: int
    decoded: int
    escaped: int
    share: float
    low: float
    high: float


Groups = dict[str, Escapes]


class Damaged(Evidence):
    """Escapes by accident and by edit, of all files and of each format."""

    model_config = ConfigDict(extra="allow")

    by_kind: dict[str, Groups]
    """Escapes of each kind of damage, by format."""
    __pydantic_extra__: dict[str, Groups]

    @property
    def groups(self) -> dict[str, Groups]:
        return self.__pydantic_extra__


class GuardResult(Evidence, Origin):
    """The study `guard`."""

    options: Options
    microseconds: dict[str, Cost]
    """Cost of all files, of each format, and of JPEGs of a set size."""
    good: dict[str, int]
    """Number of good files, and of each answer to them."""
    good_of_other_encoders: dict[str, int]
    damaged: Damaged
