"""`watch:` of gateway.yaml: how rarely the watch may be wrong, and what counts as a loss."""

from typing import Self

from pydantic import Field, model_validator

from slipway.contract.typed_file import Contract

MOST_TIMES_ROWS = 20
"""Largest evidence of a change, in multiples of the number of rows, with which rows count as unchanged."""


class WatchSettings(Contract):
    """Settings of the watch. Every key has a default."""

    rows_between_false_alarms: float = Field(default=432_000, ge=1_000, le=1e12)
    """Rows of a classifier between two false alarms of drift, on average at least. The default is 30 days of a row
    every six seconds."""
    accuracy_points: float = Field(default=2.0, ge=0, le=100)
    """Loss of accuracy, and of a class's recall, tolerated without an alarm, in percentage points."""
    reference_rows: int = Field(default=1_000, ge=100, le=100_000)
    """Unchanged live rows from which the live reference is made, which replaces that of the test split for drift."""
    metrics_port: int = Field(default=8006, ge=1, le=65535)
    """Port of the watch's GET /metrics and of its page on 127.0.0.1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if MOST_TIMES_ROWS * self.reference_rows > self.rows_between_false_alarms:
            raise ValueError(
                f"rows_between_false_alarms is {self.rows_between_false_alarms:,.0f} and reference_rows "
                f"{self.reference_rows:,}: the first must be at least {MOST_TIMES_ROWS} times the second, since "
                "rows with an evidence up to that count as unchanged; raise the first, or lower the second"
            )
        return self
