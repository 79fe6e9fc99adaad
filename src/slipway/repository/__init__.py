"""From bundles and engines to the model repository that Triton loads."""

from slipway.repository.assemble import assemble
from slipway.repository.classifier import Classifier
from slipway.repository.pick import open_engines, pick_engines

__all__ = ["Classifier", "assemble", "open_engines", "pick_engines"]
