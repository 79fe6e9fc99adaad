"""The differences between the lanes of a repository. The modules `cpu_lane` and `gpu_lane` implement them."""

from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from slipway.contract import Bundle, Lane
from slipway.contract.base_bundle import Base
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving
from slipway.repository import cpu_lane, gpu_lane
from slipway.repository.classifier import Classifier, Networks
from slipway.repository.config import ModelConfig
from slipway.repository.heads import ServedBase
from slipway.repository.step import StepModel


class LaneRules(Protocol):
    """Rules of a lane: how it finds its engines, what it refuses, and which steps it serves."""

    DECODER: str
    """Where the lane decodes."""
    SERVE_VERB: str
    """Command that serves the lane."""

    def pick(self, bundle: Bundle, engines: Path, serving: Serving, /) -> Classifier:
        """The classifier with the engines in `engines` that the lane serves; see `pick_engines`."""
        ...

    def how_to_make(self, bundle: Bundle, engines: Path) -> str:
        """The command that makes an engine of the lane in `engines`, as the end of an error message."""
        ...

    def check(self, versions: Sequence[Classifier], bases: Sequence[ServedBase], /) -> None:
        """Raises RepositoryError: the lane cannot serve one of `versions` or `bases`, or not all of them together."""
        ...

    def settle(self, networks: Networks, *, sharing: Collection[str], cores: int | None) -> tuple[Networks, int | None]:
        """Return the networks with every choice made that `serving` leaves to the machine, also of kept versions; and
        the cores that something was chosen for, if anything was.

        Args:
            sharing: names of classifiers whose decode others share.
            cores: of the machine that will serve; None for those that this process may use.
        """
        ...

    def chain(self, classifier: Classifier, /) -> tuple[StepModel, ...]:
        """The steps in the order of processing."""
        ...

    def pick_base(self, base: Base, engines: Path, name: str, serving: Serving, /) -> ServedBase:
        """The base with the engines in `engines` that the lane serves, under a name of the fleet file."""
        ...

    def base_steps(self, base: ServedBase, /) -> tuple[StepModel, ...]:
        """The steps that all heads of a base share, in the order of processing."""
        ...

    def describe(self, lane: Lane, networks: Networks, *, steps: Collection[ModelConfig], stand_ins: Set[str]) -> Lane:
        """`lane` with the fields that this lane alone has.

        Args:
            steps: every step that an ensemble runs.
            stand_ins: heads that were fitted to the typed graph of a plan.
        """
        ...


LANE_RULES: Mapping[LaneName, LaneRules] = {"cpu": cpu_lane, "gpu": gpu_lane}
