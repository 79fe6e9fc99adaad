"""Checks the wiring of an ensemble: its steps, their queues, and the producer and the consumers of each tensor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.lint.agreement import check_agreement
from slipway.lint.finding import Findings
from slipway.lint.models import ENSEMBLE, Model, Repository, ensembles, listed, proto

REMEDIES = {
    "queue-in-a-branch": "remove it here, and bound the queue of the ensemble's first step",
    "queue-not-first": "remove it here, and bound the queue of the ensemble's first step",
    "queue-limit": "remove it, and let requests time out there (default_timeout_microseconds)",
}
FIRST_STEP_MAY_HAVE_A_LIMIT = True
"""Whether `max_queue_size` of a first step is allowed, as specs offer it. With it, servers ended when gRPC clients gave
up under load (docs/adr/0026)."""


@dataclass(frozen=True)
class Wiring:
    """The steps of an ensemble with their dependencies."""

    steps: Sequence[Any]
    made_by: Mapping[str, int]
    """Tensor to the index of the first step that produces it."""
    needs: Sequence[frozenset[int]]
    """The steps on which each step depends, directly or not, by index."""

    @classmethod
    def of(cls, config: Any) -> "Wiring":
        steps = list(config.ensemble_scheduling.step)
        made_by: dict[str, int] = {}
        for index, step in enumerate(steps):
            for tensor in step.output_map.values():
                made_by.setdefault(tensor, index)
        direct = [{made_by[tensor] for tensor in step.input_map.values() if tensor in made_by} for step in steps]
        return cls(steps, made_by, [_closure(index, direct) for index in range(len(steps))])

    def in_parallel(self, step: int) -> list[int]:
        """Steps that may run while `step` does."""
        return [
            other
            for other in range(len(self.steps))
            if other not in self.needs[step] | {step} and step not in self.needs[other]
        ]


def check_ensemble(model: Model, models: Mapping[str, Model]) -> Findings:
    """Check everything that Triton checks when it loads an ensemble, and two things that it does not."""
    wiring = Wiring.of(model.config)
    if not model.config.HasField("ensemble_scheduling"):
        return  # a finding of the layout
    if not wiring.steps:
        yield model.finding("ensemble-empty", "ensemble_scheduling.step", "no steps", "add them")
        return
    for index, step in enumerate(wiring.steps):
        yield from _step(model, index, step, models)
    yield from _loop(model, models)
    yield from _made_twice(model, wiring)
    yield from _data_flow(model, wiring)
    yield from _public(model, wiring)
    yield from check_agreement(model, models)


def _step(model: Model, index: int, step: Any, models: Mapping[str, Model]) -> Findings:
    field = f"ensemble_scheduling.step[{index}]"
    lacking = [part for part in ("model_name", "input_map", "output_map") if not getattr(step, part)]
    if lacking:
        yield model.finding("step-incomplete", field, f"no {listed(lacking)}", "write all three")
    if step.model_name and step.model_name not in models:
        reason = f"{step.model_name} is not in the repository"
        yield model.finding("step-missing", f"{field}.model_name", reason, "add it, or name another")
        return
    target = models.get(step.model_name)
    if target is None or target.problem:
        return  # a finding on that model itself
    if step.model_version != -1 and str(step.model_version) not in target.served and target.served:
        reason = f"{step.model_version} (0 if it is not written), but {target.name} serves {listed(target.served)}"
        yield model.finding("step-version", f"{field}.model_version", reason, "write -1 for the served version")
    for side, mapping, has in (
        ("input", step.input_map, target.inputs),
        ("output", step.output_map, target.outputs),
    ):
        for inner in sorted(set(mapping) - has.keys()):
            reason = f"{target.name} has no {side} {inner}, only {listed(has) if has else 'none'}"
            yield model.finding("map-unknown", f"{field}.{side}_map[{inner!r}]", reason, "map one that it has")
        for inner in has.keys() - set(mapping) if side == "input" else ():
            if not has[inner].optional:
                reason = f"{target.name} needs input {inner}, but nothing is mapped to it"
                yield model.finding("input-unmapped", f"{field}.input_map", reason, "map a tensor to it")
    most, wanted = target.config.max_batch_size, model.config.max_batch_size
    if 0 < most < wanted:
        reason = f"batches of {wanted}, but step {target.name} takes at most {most}"
        yield model.finding("batch-too-large", "max_batch_size", reason, f"write {most}, or let the step take more")


def _loop(model: Model, models: Mapping[str, Model]) -> Findings:
    steps = [models[step.model_name] for step in model.config.ensemble_scheduling.step if step.model_name in models]
    if all(step.backend != ENSEMBLE for step in steps):
        return  # as in each of a thousand
    inside = ensembles(models)
    direct = {name: {step for step in steps if step in inside} for name, steps in inside.items()}
    reached, ahead = set[str](), list(direct.get(model.name, ()))
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += direct[name]
    if model.name in reached:
        reason = f"the ensemble is a step of itself, through {listed(sorted(direct[model.name]))}"
        yield model.finding("step-loop", "ensemble_scheduling.step", reason, "remove that step")


def _made_twice(model: Model, wiring: Wiring) -> Findings:
    inputs = {tensor.name for tensor in model.config.input}
    for index, step in enumerate(wiring.steps):
        for inner, tensor in sorted(step.output_map.items()):
            others = [wiring.made_by[tensor]] if wiring.made_by[tensor] != index else []
            again = sum(other == tensor for other in step.output_map.values()) > 1
            if others or again or tensor in inputs:
                by = f"step[{others[0]}]" if others else "the request" if tensor in inputs else "the same step"
                field = f"ensemble_scheduling.step[{index}].output_map[{inner!r}]"
                yield model.finding(
                    "tensor-made-twice", field, f"{tensor} also comes from {by}", "give it another name"
                )


def _data_flow(model: Model, wiring: Wiring) -> Findings:
    inputs = {tensor.name for tensor in model.config.input}
    public = {tensor.name for tensor in model.config.output}
    taken = {tensor for step in wiring.steps for tensor in step.input_map.values()}
    for index, step in enumerate(wiring.steps):
        for inner, tensor in sorted(step.input_map.items()):
            if tensor not in inputs | wiring.made_by.keys():
                field = f"ensemble_scheduling.step[{index}].input_map[{inner!r}]"
                reason = f"{tensor} is neither an input of the ensemble nor the output of a step"
                yield model.finding("tensor-missing", field, reason, "map an existing tensor")
        for inner, tensor in sorted(step.output_map.items()):
            if tensor not in taken | public:
                field = f"ensemble_scheduling.step[{index}].output_map[{inner!r}]"
                reason = f"{tensor} is neither used by a step nor an output"
                yield model.finding("tensor-unused", field, reason, "remove the mapping")
    circle = [index for index in range(len(wiring.steps)) if index in wiring.needs[index]]
    if circle:
        reason = f"{listed(f'step[{index}]' for index in circle)} wait for each other"
        yield model.finding("tensor-circle", "ensemble_scheduling.step", reason, "let tensors pass in one direction")
    for index, tensor in enumerate(model.config.input):
        if tensor.name not in taken:
            yield model.finding("tensor-unused", f"input[{index}]", f"no step uses {tensor.name}", "remove it")


def _public(model: Model, wiring: Wiring) -> Findings:
    inputs = {tensor.name for tensor in model.config.input}
    taken = {tensor for step in wiring.steps for tensor in step.input_map.values()}
    for index, tensor in enumerate(model.config.output):
        field = f"output[{index}]"
        if tensor.name not in inputs | wiring.made_by.keys():
            yield model.finding("output-missing", field, f"no step produces {tensor.name}", "map a step's output to it")
        elif tensor.name in taken - inputs:
            reason = f"{tensor.name} is an output and also a step's input: a request for only some outputs deadlocks"
            remedy = "let the last step output it under another name"
            yield model.finding("public-and-taken", field, reason, remedy)


def _closure(start: int, direct: Sequence[set[int]]) -> frozenset[int]:
    reached, ahead = set[int](), list(direct[start])
    while ahead:
        step = ahead.pop()
        if step not in reached:
            reached.add(step)
            ahead += direct[step]
    return frozenset(reached)


def check_queues(repository: Repository) -> Findings:
    """Check that an ensemble rejects requests only at its first step.

    If a step rejects a request while another step of it runs, that request never ends in tritonserver 2.51
    (triton-inference-server/core#466). If a later step rejects it, the work of the earlier ones is lost.
    """
    for name in repository.ensembles:
        wiring = Wiring.of(repository.models[name].config)
        for index, step in enumerate(wiring.steps):
            target = repository.models.get(step.model_name)
            if target is None or target.problem or target.backend == ENSEMBLE:
                continue
            beside = [wiring.steps[other].model_name for other in wiring.in_parallel(index)]
            for field, what in _bounds(target.config):
                if beside:
                    rule, why = "queue-in-a-branch", f"{listed(beside)} runs beside it in {name}"
                elif wiring.needs[index]:
                    rule, why = "queue-not-first", f"in {name} it is not the first step, so earlier work is lost"
                elif field.endswith("max_queue_size") and not FIRST_STEP_MAY_HAVE_A_LIMIT:
                    rule, why = "queue-limit", f"{name} ends the server if gRPC clients give up meanwhile"
                else:
                    continue
                yield target.finding(rule, field, f"{what}, and {why}", REMEDIES[rule])


def _bounds(config: Any) -> Iterator[tuple[str, str]]:
    """The fields by which a step rejects a request, each with a description."""
    batching = config.dynamic_batching
    policies = {"default_queue_policy": batching.default_queue_policy}
    policies |= {
        f"priority_queue_policy[{key}]": value for key, value in sorted(batching.priority_queue_policy.items())
    }
    for name, policy in policies.items():
        field = f"dynamic_batching.{name}"
        if policy.max_queue_size:
            yield f"{field}.max_queue_size", f"rejects a request when {policy.max_queue_size} wait"
        if policy.default_timeout_microseconds and policy.timeout_action == proto.ModelQueuePolicy.REJECT:
            limit_us = policy.default_timeout_microseconds
            yield f"{field}.default_timeout_microseconds", f"rejects a request that waited {limit_us} µs"
        if policy.allow_timeout_override and policy.timeout_action == proto.ModelQueuePolicy.REJECT:
            yield f"{field}.allow_timeout_override", "rejects a request after the time that its client sets"
