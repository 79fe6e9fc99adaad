"""The answer for one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from slipway.client.errors import ClientError
from slipway.client.images import Source
from slipway.steps.guard import STATUS_NAMES

OUTPUTS = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE")
EMBEDDING = "EMBEDDING"
"""The output of `<name>_full` that a network without an embedding lacks."""
FULL_OUTPUTS = (*OUTPUTS, "PROBABILITY", EMBEDDING)


@dataclass(frozen=True)
class Candidate:
    """One label of an answer, with its probability."""

    label: str
    """The name of the class."""
    score: float
    """Calibrated probability of the label."""
    class_id: int
    """Stable id of the class: the same in every version of the classifier, and -1 for `unknown`."""


@dataclass(frozen=True, eq=False)
class Result:
    """The answer for one image, or the reason why there is none.

    If the server answered, `status` has its verdict; if not, `error` has the reason.
    """

    source: Source = field(repr=False)
    """The image as it was passed in; for a folder, the path of the file in it."""
    request_id: str
    """Id of the request that carried the image; it is in the server's log and traces too."""
    error: ClientError | None = None
    """The reason for which the server did not answer."""
    status: int | None = None
    """0 if the image was classified; any other value is the reason for which the server refused it."""
    label: str | None = None
    """The best label."""
    score: float | None = None
    """Calibrated probability of `label`."""
    class_id: int | None = None
    """Stable id of `label`: the same in every version of the classifier, and -1 for `unknown`."""
    candidates: tuple[Candidate, ...] = ()
    """The labels after the best one, in descending order of probability."""
    bundle: str | None = None
    """Id of the bundle that answered."""
    probability: NDArray[np.float32] | None = None
    """Calibrated probability of every class, FP32 [classes]; set if `full=True`."""
    embedding: NDArray[np.float32] | None = None
    """Embedding of the image, FP32 [d]; set if `full=True` and the network has one."""

    @property
    def ok(self) -> bool:
        """Whether the image was classified."""
        return self.status == 0

    @property
    def status_name(self) -> str | None:
        """The name of `status`, such as `OK`; None without an answer."""
        if self.status is None:
            return None
        return STATUS_NAMES[self.status] if 0 <= self.status < len(STATUS_NAMES) else f"status {self.status}"

    @classmethod
    def of(cls, source: Source, outcome: Mapping[str, NDArray[Any]] | ClientError, *, request_id: str) -> Self:
        """Build the result from the image's row of each output tensor, or from the error."""
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
