"""Checks that all parts of an ensemble agree on the type, the size and the batching of each tensor."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from slipway.lint.finding import Findings
from slipway.lint.models import Model, type_name
from slipway.lint.tensors import fits


@dataclass(frozen=True)
class End:
    """A tensor as one model or the request describes it."""

    field: str
    """Field of the ensemble's configuration that connects the tensor."""
    who: str
    type: str
    dims: tuple[int, ...]
    batched: bool

    @classmethod
    def of(cls, field: str, who: str, config: Any, tensor: Any) -> "End":
        return cls(field, who, type_name(tensor), tuple(tensor.dims), config.max_batch_size > 0)

    def __str__(self) -> str:
        return f"{self.type.removeprefix('TYPE_')} {list(self.dims)}"

    @property
    def full(self) -> tuple[int, ...]:
        """The dimensions with the batch."""
        return (-1, *self.dims) if self.batched else self.dims


def check_agreement(model: Model, models: Mapping[str, Model]) -> Findings:
    """Compare each tensor between its producer and each of its consumers."""
    made, taken = _ends(model, models)
    mixed = False
    for name, taker in taken:
        maker = made.get(name)
        if maker is None:
            continue
        reason = f"{name}: {taker.who} takes {taker}, but {maker.who} gives {maker}"
        if taker.type != maker.type:
            yield model.finding("type-differs", taker.field, reason, "make both types equal")
        elif not fits(taker.full, maker.full) and not fits(taker.dims, maker.dims):
            yield model.finding("dims-differ", taker.field, reason, "make both sizes equal")
        elif not fits(taker.full, maker.full) and not mixed:
            mixed = True  # report once: it concerns all tensors of a step
            one, other = (maker, taker) if maker.batched else (taker, maker)
            reason = (
                f"{name}: {one.who} works in batches, and {other.who} (max_batch_size 0) takes {other} and no batch"
            )
            yield model.finding("batches-mixed", taker.field, reason, "give both a max_batch_size, or neither")


def _ends(model: Model, models: Mapping[str, Model]) -> tuple[dict[str, End], list[tuple[str, End]]]:
    """The producer of each tensor, and all consumers."""
    config = _as_the_steps_see_it(model.config)
    made = {tensor.name: End.of("input", "the request", config, tensor) for tensor in config.input}
    taken: list[tuple[str, End]] = []
    for index, step in enumerate(config.ensemble_scheduling.step):
        target = models.get(step.model_name)
        if target is None or target.problem:
            continue
        field = f"ensemble_scheduling.step[{index}]"
        for inner in sorted(target.inputs.keys() & set(step.input_map)):
            end = End.of(f"{field}.input_map[{inner!r}]", target.name, target.config, target.inputs[inner])
            taken.append((step.input_map[inner], end))
        for inner in sorted(target.outputs.keys() & set(step.output_map)):
            end = End.of(f"{field}.output_map[{inner!r}]", target.name, target.config, target.outputs[inner])
            made.setdefault(step.output_map[inner], end)
    for index, tensor in enumerate(config.output):
        taken.append((tensor.name, End.of(f"output[{index}]", "the ensemble", config, tensor)))
    return made, taken


def _as_the_steps_see_it(config: Any) -> Any:
    """The configuration of an ensemble with its own reshapes applied."""
    seen = deepcopy(config)
    for tensor in (*seen.input, *seen.output):
        if tensor.HasField("reshape"):
            tensor.dims[:] = tensor.reshape.shape
    return seen
