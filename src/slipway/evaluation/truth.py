"""The true classes of images as an array: class ids, or a table of labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract.decision import Task


def truth_of(class_ids: Sequence[Sequence[int]], *, task: Task, classes: int) -> npt.NDArray[Any]:
    """Class ids `INT64 [n]` or, for multi-label, a table `BOOL [n, classes]`."""
    if task == "multilabel":
        return table(class_ids, classes=classes)
    return np.array([class_id for (class_id,) in class_ids], np.int64)


def table(class_ids: Sequence[Sequence[int]], *, classes: int) -> npt.NDArray[np.bool_]:
    """Turn lists of class ids into a table `[n, classes]`."""
    found_nc = np.zeros((len(class_ids), classes), np.bool_)
    for row, listed in enumerate(class_ids):
        found_nc[row, list(listed)] = True
    return found_nc
