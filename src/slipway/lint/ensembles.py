"""Does an ensemble hold together? What Triton checks when it loads one: steps, tensors, types, sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

from slipway.lint.models import Model, check_layout, type_name

Tensors = dict[str, tuple[str, list[int]]]
"""Name to type and dims without the batch."""


def check_ensemble(model: Model, models: Mapping[str, Model]) -> list[str]:
    """Everything that does not fit; empty for an ensemble that would load if its steps do."""
    layout = check_layout(model)
    if layout is not None:
        return [layout]
    absent = [step.model_name for step in model.config.ensemble_scheduling.step if step.model_name not in models]
    if absent:
        return [f"its step {', '.join(dict.fromkeys(absent))} is not in the repository"]
    known = _tensors(model.config.input)
    problems: list[str] = []
    for step in model.config.ensemble_scheduling.step:
        target = models[step.model_name]
        if target.problem:  # said of that model itself; what it would give is not known
            return problems
        problems += _step_problems(step, target.config, known, ensemble=model.config)
    for name, wanted in _tensors(model.config.output).items():
        if name not in known:
            problems.append(f"no step gives its output {name}")
        elif not _fits(known[name], wanted):
            problems.append(f"output {name} is {_say(wanted)}, and the step gives {_say(known[name])}")
    return problems


def _step_problems(step: Any, config: Any, known: Tensors, *, ensemble: Any) -> Iterator[str]:
    """What does not fit at one step; `known` gets what the step gives."""
    inputs, outputs = _tensors(config.input), _tensors(config.output)
    if config.max_batch_size < ensemble.max_batch_size:
        yield f"takes batches of {ensemble.max_batch_size}, and {step.model_name} of {config.max_batch_size} at most"
    for inner, outer in sorted(step.input_map.items()):
        if inner not in inputs:
            yield f"{step.model_name} has no input {inner}"
        elif outer not in known:
            yield f"{step.model_name} needs {outer}, and no step before it gives that"
        elif not _fits(known[outer], inputs[inner]):
            yield f"{step.model_name} takes {inner} as {_say(inputs[inner])}, and is given {_say(known[outer])}"
    optional = {tensor.name for tensor in config.input if tensor.optional}
    for name in sorted(inputs.keys() - optional - set(step.input_map)):
        yield f"{step.model_name} needs input {name}, and nothing is mapped to it"
    for inner, outer in sorted(step.output_map.items()):
        if inner in outputs:
            known[outer] = outputs[inner]
        else:
            yield f"{step.model_name} has no output {inner}"


def _tensors(entries: Any) -> Tensors:
    return {entry.name: (type_name(entry), list(entry.dims)) for entry in entries}


def _fits(given: tuple[str, list[int]], wanted: tuple[str, list[int]]) -> bool:
    return (
        given[0] == wanted[0]
        and len(given[1]) == len(wanted[1])
        and all(-1 in pair or pair[0] == pair[1] for pair in zip(given[1], wanted[1], strict=True))
    )


def _say(tensor: tuple[str, list[int]]) -> str:
    return f"{tensor[0].removeprefix('TYPE_')} {tensor[1]}"
