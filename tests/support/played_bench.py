"""`slipway tune` without servers: how much some settings hold is known."""

from collections.abc import Mapping
from typing import Any, Self

from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.tuning import NotStarted
from slipway.contract.serving import Serving


class PlayedBench:
    """In place of `slipway.cli.tune_measure.Bench`."""

    gain: int | None = 0
    """Rungs of the comparison between the start and what the search found; None for what `known` says."""

    def __init__(self, *_: object) -> None:
        self.evidence: list[NotStarted] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def known(self, serving: Serving) -> int:
        """The highest rung that these settings hold."""
        raise NotImplementedError

    def searched(self, serving: Serving, rung: int) -> bool:
        self.evidence.append(NotStarted(serving=serving, rate_per_s=rate_at(rung), error="not measured"))
        return rung <= self.known(serving)

    def compared(self, sides: Mapping[str, Serving], *, rounds: int, **_: Any) -> dict[str, list[int]]:
        start = self.known(sides["before"])
        after = self.known(sides["after"]) if self.gain is None else start + self.gain
        return {"before": [start] * rounds, "after": [after] * rounds}
