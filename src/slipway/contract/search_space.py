"""`SearchSpace`: the spec fields that `slipway search` may change."""

import difflib
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from slipway.contract.spec import Spec
from slipway.contract.typed_file import Contract
from slipway.errors import SpecError

DottedPath = Annotated[str, Field(pattern=r"^[a-z_0-9]+([.][a-z_0-9]+)*$")]


class Range(Contract):
    """Values of one field: from `low` to `high` inclusive, or one of `choices`."""

    low: int | float | None = None
    """Least value, which needs `high` too."""
    high: int | float | None = None
    """Greatest value. Whole numbers are drawn if `low`, `high` and `step` are whole."""
    log: bool = False
    """True samples on a logarithmic scale, as suits learning rates."""
    step: int | float | None = None
    """Distance between values, from `low` on; not with `log`. The default is 1 for whole numbers, else none."""
    choices: tuple[Any, ...] | None = None
    """The values, instead of `low` and `high`: anything that the field takes, even lists."""

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Self:
        ends = (self.low, self.high)
        if self.choices is not None:
            if ends != (None, None) or self.log or self.step is not None:
                raise ValueError("give either choices, or low and high with log or step")
            if not self.choices:
                raise ValueError("choices is empty; give at least one")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")
        return self

    @property
    def whole(self) -> bool:
        """True if all values are integers, which are written without a decimal point."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that the spec must accept."""
        return self.choices if self.choices is not None else (self.low, self.high)


class SearchSpace(Contract):
    """The fields to search and the metric to optimise."""

    metric: str = "val_macro_f1"
    """Validation metric of training: minimised if its name ends in `loss`, otherwise maximised."""
    parameters: Annotated[dict[DottedPath, Range], Field(min_length=1)]
    """Range of each field, by its path in the spec, for example `recipe.learning_rate`."""
    pruning_trials: int = Field(default=5, ge=1)
    """Trials that are never cut short. Pruning compares with the median of earlier trials at the same epoch."""
    pruning_epochs: int = Field(default=3, ge=0)
    """Epochs of each trial before it may be cut short."""

    @property
    def minimize(self) -> bool:
        return self.metric.endswith("loss")

    def check(self, spec: Spec, *, source: str) -> None:
        """Raises SpecError: the spec lacks a field or does not accept its values."""
        for path, values in self.parameters.items():
            for value in values.ends:
                changed(spec, {path: value}, source=source)


def changed(spec: Spec, values: dict[str, Any], *, source: str) -> Spec:
    """`spec` with the fields at these dotted paths set.

    Raises:
        SpecError: there is no such field, or it does not accept the value.
    """
    plain = spec.model_dump(mode="json")
    for path, value in values.items():
        *parents, last = path.split(".")
        at: Any = plain
        for parent in parents:
            at = at.get(parent) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            similar = ", ".join(difflib.get_close_matches(path, _paths(plain))) or "none"
            raise SpecError(f"{source}: {path}: the spec has no such field to search; similar fields: {similar}")
        at[last] = value
    return Spec.parse(plain, source=source)


def _paths(plain: dict[str, Any], above: str = "") -> list[str]:
    """The dotted path of every field that has none below it."""
    found = []
    for name, value in plain.items():
        found += _paths(value, f"{above}{name}.") if isinstance(value, dict) else [f"{above}{name}"]
    return found
