"""What comes back for one image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from slipway.client.errors import ClientError
from slipway.client.images import Source
from slipway.steps.guard import STATUS_NAMES

OUTPUTS = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE")
EMBEDDING = "EMBEDDING"
"""Of `<name>_full`, but for a network without an embedding."""
FULL_OUTPUTS = (*OUTPUTS, "PROBABILITY", EMBEDDING)


@dataclass(frozen=True)
class Candidate:
    """One label that an image may have."""

    label: str
    score: float
    """Calibrated probability."""
    class_id: int
    """The same in every version of the classifier; -1 for `unknown`."""


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one image.

    Either the server answered, and `status` says how, or it did not, and `error` says why.
    """

    source: Source
    """What was given; for a folder, the path of the file in it."""
    request_id: str
    """Of the request that it was in; the server's log and traces have it too."""
    error: ClientError | None = None
    """Why the server has not answered."""
    status: int | None = None
    """0: classified. Otherwise the server refused the image, and `status_name` says why."""
    label: str | None = None
    score: float | None = None
    """Of the label: its calibrated probability."""
    class_id: int | None = None
    """Of the label; the same in every version of the classifier; -1 for `unknown`."""
    candidates: tuple[Candidate, ...] = ()
    """The labels after the first, best first."""
    bundle: str | None = None
    """The id of the bundle that answered."""
    probability: NDArray[np.float32] | None = None
    """FP32 [classes], calibrated, where `full=True` asked for it."""
    embedding: NDArray[np.float32] | None = None
    """FP32 [d], where `full=True` asked for it and the network has one."""

    @property
    def ok(self) -> bool:
        """Was the image classified?"""
        return self.status == 0

    @property
    def status_name(self) -> str | None:
        if self.status is None:
            return None
        return STATUS_NAMES[self.status] if 0 <= self.status < len(STATUS_NAMES) else f"status {self.status}"

    @classmethod
    def of(cls, source: Source, outcome: Mapping[str, NDArray[Any]] | ClientError, *, request_id: str) -> Self:
        """From one image's row of each tensor of the served interface, or from why there is none."""
        if isinstance(outcome, ClientError):
            return cls(source, request_id, error=outcome)
        ranked = zip(*(outcome[name].tolist() for name in ("LABEL", "SCORE", "CLASS_ID")), strict=True)
        best_first = [Candidate(label.decode(), score, class_id) for label, score, class_id in ranked if label]
        best = vars(best_first[0]) if best_first else {}
        return cls(
            source,
            request_id,
            status=int(outcome["STATUS"][0]),
            **best,
            candidates=tuple(best_first[1:]),
            bundle=outcome["BUNDLE"][0].decode(),
            probability=outcome.get("PROBABILITY"),
            embedding=outcome.get("EMBEDDING"),
        )
