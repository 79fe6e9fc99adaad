"""Tensors that steps of every kind have."""

from slipway.contract import Preprocess
from slipway.contract.engine import INPUT
from slipway.repository.config import Tensor

IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
IMAGE_STATUS = Tensor("image_status", "TYPE_INT32", (1,))
AFTER = Tensor("after", "TYPE_FP32", (-1,), optional=True)
"""Input of an engine step on the cpu lane, and of a group of heads. The step ignores its values, but waits until
another step has made it."""
EMBEDDING = "EMBEDDING"


def pixels_of(preprocess: Preprocess) -> Tensor:
    """What a decoder hands to an engine."""
    return Tensor(INPUT, "TYPE_UINT8", (*preprocess.input_size, 3))
