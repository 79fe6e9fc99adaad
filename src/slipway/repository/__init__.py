"""Makes the model repository that Triton loads from bundles and engines."""

from slipway.repository.classifier import Classifier
from slipway.repository.fleet import open_bases, open_fleet
from slipway.repository.groups import BaseHeads
from slipway.repository.lane_engines import open_engines, pick_engines
from slipway.repository.plan import assemble, plan_repository
from slipway.repository.write import RepositoryPlan

__all__ = [
    "BaseHeads",
    "Classifier",
    "RepositoryPlan",
    "assemble",
    "open_bases",
    "open_engines",
    "open_fleet",
    "pick_engines",
    "plan_repository",
]
