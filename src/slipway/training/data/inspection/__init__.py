"""Reports the content and problems of a data set before training, as JSON and one self-contained page."""

from slipway.training.data.inspection.inspect import PAGE, RESULT, inspect
from slipway.training.data.inspection.result import Inspection

__all__ = ["PAGE", "RESULT", "Inspection", "inspect"]
