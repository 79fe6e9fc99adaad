"""`history.json` of a checkpoint: a row for each epoch of its training."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from slipway.contract.typed_file import Evidence
from slipway.system.yaml_json import read_plain

HISTORY = "history.json"


class EpochRow(Evidence):
    """One epoch: the learning rates at its end, and its losses and metrics by their names, such as `val_macro_f1`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)  # a loss may be infinite

    epoch: int
    phase: str
    """The parts that were trained, in words."""
    learning_rate: float
    backbone_learning_rate: float
    __pydantic_extra__: dict[str, float]

    def __getitem__(self, name: str) -> float:
        """The loss or metric of this name."""
        return self.__pydantic_extra__[name]

    def plain(self) -> dict[str, Any]:
        """The row with its keys in the order of training, and with every number as it is."""
        return self.model_dump()


def history_text(rows: Iterable[EpochRow]) -> str:
    return json.dumps([row.plain() for row in rows], indent=2) + "\n"


def read_history(path: Path) -> list[EpochRow]:
    """Raises SpecError: it is not a history."""
    return [EpochRow.parse(row, source=str(path)) for row in read_plain(path)]
