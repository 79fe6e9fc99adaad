"""`release` of a fleet file: the candidate, its share of the requests, and how it is judged."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.spec import check_name
from slipway.contract.typed_file import Contract

Name = Annotated[str, AfterValidator(check_name)]
Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
"""A folder, absolute or relative to the fleet file."""


class JudgeSettings(Contract):
    """Limits by which a candidate is judged worse, or good enough."""

    error_ratio: float = Field(default=1.25, ge=1)
    """A candidate is worse only if its error rate is measured at this many times the stable one's, or more."""
    acceptable_ratio: float = Field(default=2.0, gt=1)
    """A candidate is fine once its error rate is shown to be under this many times the stable one's."""
    negligible_share: float = Field(default=0.001, gt=0, lt=1)
    """A candidate is also fine once its share of errors (or of differing answers) is shown to be under this one."""
    slow_share: float | None = Field(default=0.01, gt=0, lt=1)
    """Largest share of requests over the latency budget; null if no latency is to be judged."""
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability of a false `worse`, and of a false `fine`, over all looks together."""
    bake_minutes: float = Field(default=60, ge=0)
    """Minutes with requests for the candidate before it may be fine: a fault that comes rarely needs time to come."""
    max_hours: float = Field(default=24, gt=0)
    """Hours after which a candidate that is still `too_few` has expired."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.error_ratio >= self.acceptable_ratio:
            raise ValueError("error_ratio must be smaller than acceptable_ratio")
        if self.bake_minutes >= 60 * self.max_hours:
            raise ValueError(
                f"bake_minutes is {self.bake_minutes:g}, and max_hours {self.max_hours:g} is not longer; "
                "lower bake_minutes, or raise max_hours"
            )
        return self


class FleetRelease(Contract):
    """A candidate beside the served fleet."""

    candidate: dict[Name, Folder] = Field(min_length=1)
    """Folder of the run that is to answer, by the classifier's name."""
    weight: int = Field(default=10, ge=0, le=100)
    """Percentage of the requests that the candidate answers, unless the command gives another."""
    mirror: int = Field(default=0, ge=0, le=100)
    """Percentage of the requests of which the candidate gets a copy, unless the command gives another."""
    approval: Literal["human", "automatic"] = "human"
    """Whether a person approves a promotion, or the verdict `fine` alone promotes."""
    rollback: Literal["human", "automatic"] = "automatic"
    """Whether the verdict `worse` sets the weight to 0 at once, or only says so."""
    judge: JudgeSettings = JudgeSettings()
    """Limits by which the candidate is judged worse, or good enough."""
