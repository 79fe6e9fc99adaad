"""The result file of the study, which has an entry for each experiment."""

from pydantic import ConfigDict

from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Evidence


class Target(Evidence):
    what: str
    asked: str
    measured: str
    met: bool


class Found(Evidence):
    """Findings of an experiment, which records more fields than these."""

    model_config = ConfigDict(extra="allow")

    targets: tuple[Target, ...]
    error: str = ""
    """Error that ended the experiment."""


class Experiment(Found, Origin):
    model_config = Found.model_config

    purpose: str
    duration_s: float


class Step(Evidence):
    """A stage as a user runs it."""

    seconds: float
    peak_mib: float
    """Memory of the largest process."""


class Served(Evidence):
    """Answers of a server against the engine's `predictions.csv`."""

    images: int
    equal: int
    """Images with the same labels."""
    largest_score_difference: float
    server_mib: float
    """Resident memory of the server and its steps."""
    seconds: float
    """Duration with the server's start."""
