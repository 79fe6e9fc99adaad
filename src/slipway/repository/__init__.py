"""From bundles and engines to the model repository that Triton loads."""

from slipway.repository.assemble import assemble
from slipway.repository.classifier import Classifier

__all__ = ["Classifier", "assemble"]
