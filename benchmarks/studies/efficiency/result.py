"""The result file of the study."""

from collections.abc import Mapping

from pydantic import Field, JsonValue

from slipway.contract.evidence.studies import EfficiencyResult, Efficient


class FullEfficient(Efficient):
    """Everything that was measured of one classifier."""

    precision: str
    graph_sha256: str
    serving: dict[str, JsonValue]
    """Settings that the sides share: all but the layout and the batch."""
    memory_mib: dict[str, float]


class FullEfficiencyResult(EfficiencyResult):
    """The study `efficiency`, with everything that it records."""

    classifiers: Mapping[str, FullEfficient] = Field(min_length=1)
