"""What is in a data set, and what is wrong with it, before any training: JSON and one self-contained page."""

from slipway.training.data.inspection.inspect import PAGE, RESULT, inspect
from slipway.training.data.inspection.result import Inspection

__all__ = ["PAGE", "RESULT", "Inspection", "inspect"]
