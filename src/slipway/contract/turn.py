"""`turn` of a fleet file: the reasons to train a classifier again, and who approves."""

from typing import Literal

from pydantic import Field

from slipway.contract.typed_file import Contract


class FleetTurn(Contract):
    """Reasons for a turn of the flywheel. A reason proposes it; training needs an approval."""

    new_labels: int | None = Field(default=200, ge=1)
    """Number of labelled images missing from the active run's data that is a reason; null turns this reason off."""
    unknown_points: float | None = Field(default=5.0, ge=0, le=100)
    """Rise of the share of `unknown` answers over the reference, in percentage points, that makes an alarm of drift a
    reason; null turns this reason off."""
    lost_accuracy: bool = True
    """Whether the watch's alarm on accuracy, or on a class's recall, is a reason."""
    every_days: float | None = Field(default=90.0, gt=0)
    """Age of the active run in days that is a reason; null turns this reason off."""
    approval: Literal["human", "automatic"] = "human"
    """Whether a person approves a turn, or a reason alone begins it."""
