"""Checks the inputs and outputs of one configuration: names, types, sizes, reshapes, and warm-up requests."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from slipway.lint.finding import Findings
from slipway.lint.models import ENSEMBLE, Model, Repository, proto, type_name

_THREE = (proto.ModelInput.FORMAT_NHWC, proto.ModelInput.FORMAT_NCHW)


def check_tensors(model: Model, repository: Repository) -> Findings:
    """Check for tensors that Triton refuses, and for those that it loads but that fail later."""
    config = model.config
    for side, tensors in (("input", config.input), ("output", config.output)):
        for index, tensor in enumerate(tensors):
            yield from _tensor(model, f"{side}[{index}]", tensor)
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                reason = f"{count} {side}s are called {name!r}"
                yield model.finding("tensor-twice", side, reason, "remove one, or rename it")
    for index, tensor in enumerate(config.input):
        field = f"input[{index}]"
        if tensor.format in _THREE and len(tensor.dims) != 3:
            reason = (
                f"{proto.ModelInput.Format.Name(tensor.format)} has three dims, and {tensor.name} has {_say(tensor)}"
            )
            yield model.finding("tensor-format", f"{field}.format", reason, "remove the format, or write three dims")
        if tensor.optional and model.backend == ENSEMBLE:
            reason = f"{tensor.name} may be left out, but a step of an ensemble needs all its inputs"
            yield model.finding("ensemble-optional", f"{field}.optional", reason, "remove it")
        if model.backend == "dali" and -1 in tensor.dims and not tensor.allow_ragged_batch:
            reason = f"{tensor.name} is {_say(tensor)}: requests of different sizes never share a batch without this"
            yield model.finding(
                "ragged-missing", f"{field}.allow_ragged_batch", reason, "write allow_ragged_batch: true"
            )
    yield from _batch_io(model)
    yield from _warmup(model)
    if repository.lane is not None and model.backend == "python":
        yield from _reshaped(model)


def _tensor(model: Model, field: str, tensor: Any) -> Findings:
    lacking = [
        what
        for what, there in (("name", tensor.name), ("data_type", tensor.data_type), ("dims", len(tensor.dims)))
        if not there
    ]
    if lacking:
        reason = f"{tensor.name or 'a tensor'} has no {' and no '.join(lacking)}"
        yield model.finding("tensor-incomplete", field, reason, "write name, data_type and dims of every tensor")
    shapes = {"dims": list(tensor.dims), "reshape.shape": list(tensor.reshape.shape)}
    for part, dims in shapes.items():
        if any(dim < 1 and dim != -1 for dim in dims):
            reason = f"{tensor.name} is {dims}; each is 1 or more, or -1 for any size"
            yield model.finding("tensor-dims", f"{field}.{part}", reason, "correct the size")
            return
    if tensor.HasField("reshape") and not lacking and _elements(tensor.dims) != _elements(tensor.reshape.shape):
        reason = f"{shapes['dims']} has other elements than {shapes['reshape.shape']}"
        yield model.finding("reshape", f"{field}.reshape", reason, "let both hold the same number of elements")
    if model.backend != "tensorrt" and (tensor.is_shape_tensor or tensor.is_non_linear_format_io):
        reason = f"{tensor.name} is a shape tensor or of a format of TensorRT's, and this is not a TensorRT model"
        yield model.finding("tensor-format", field, reason, "remove is_shape_tensor and is_non_linear_format_io")


def _elements(dims: Iterable[int]) -> tuple[int, ...]:
    """Return the number of elements between each open size (-1) and the next."""
    parts: list[list[int]] = [[]]
    for dim in dims:
        parts.append([]) if dim == -1 else parts[-1].append(dim)
    return tuple(map(math.prod, parts))


def _reshaped(model: Model) -> Findings:
    for side, tensors in (("input", model.config.input), ("output", model.config.output)):
        for index, tensor in enumerate(tensors):
            if tensor.HasField("reshape") and list(tensor.reshape.shape) != list(tensor.dims):
                reason = (
                    f"{tensor.name} would be {list(tensor.reshape.shape)}, and the step's code works on {_say(tensor)}"
                )
                yield model.finding("reshape-of-a-step", f"{side}[{index}].reshape", reason, "remove it")


def _batch_io(model: Model) -> Findings:
    config = model.config
    inputs, outputs = {tensor.name for tensor in config.input}, {tensor.name for tensor in config.output}
    for side, entries in (("batch_input", config.batch_input), ("batch_output", config.batch_output)):
        for index, entry in enumerate(entries):
            problems = []
            if len(entry.source_input) != 1 or entry.source_input[0] not in inputs:
                problems.append(f"source_input {list(entry.source_input)}, and it is one of {sorted(inputs)}")
            if side == "batch_input" and entry.data_type not in (proto.TYPE_INT32, proto.TYPE_FP32):
                problems.append(f"{type_name(entry)}, and it is TYPE_INT32 or TYPE_FP32")
            if side == "batch_output" and not set(entry.target_name) <= outputs:
                problems.append(f"target_name {list(entry.target_name)}, and it is one of {sorted(outputs)}")
            for problem in problems:
                yield model.finding("batch-io", f"{side}[{index}]", problem, "correct it")


def _warmup(model: Model) -> Findings:
    tensors = {tensor.name: tensor for tensor in model.config.input}
    if model.backend == ENSEMBLE:
        return
    for index, sample in enumerate(model.config.model_warmup):
        field = f"model_warmup[{index}]"
        problems = [
            f"no input {name}, which the model needs"
            for name, tensor in tensors.items()
            if name not in sample.inputs and not tensor.optional
        ]
        if sample.batch_size > max(model.config.max_batch_size, 1):
            problems.append(f"a batch of {sample.batch_size}, and the largest is {model.config.max_batch_size}")
        for name, value in sorted(sample.inputs.items()):
            if name not in tensors:
                problems.append(f"input {name}, which the model has not")
            elif value.data_type != tensors[name].data_type or not fits(value.dims, tensors[name].dims):
                given = f"{type_name(value)} {list(value.dims)}"
                problems.append(
                    f"{name} as {given}, and the model takes {type_name(tensors[name])} {_say(tensors[name])}"
                )
            file = value.input_data_file
            if file and not (model.folder / "warmup" / file).is_file():
                problems.append(f"{name} from warmup/{file}, which is not there")
        for problem in problems:
            yield model.finding("warmup", field, problem, "let the request fit the model")


def fits(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Equal but for sizes that either side leaves open."""
    pairs = zip(given, wanted, strict=False)
    return len(given) == len(wanted) and all(-1 in pair or pair[0] == pair[1] for pair in pairs)


def _say(tensor: Any) -> str:
    return str(list(tensor.dims))
