"""`config.pbtxt` of the steps and the ensembles, made through Triton's own protobuf."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from google.protobuf import text_format

from slipway.contract import MissingDependencyError

try:
    from tritonclient.grpc import model_config_pb2 as pb
except ImportError:
    raise MissingDependencyError("tritonclient", extra="build") from None


ModelConfig: TypeAlias = Any  # pb.ModelConfig, which has no type information


@dataclass(frozen=True)
class Tensor:
    """One tensor of a step or an ensemble; `dims` without the batch dimension."""

    name: str
    data_type: str
    """As Triton names it: `TYPE_FP32`, `TYPE_STRING`, …"""
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False
    """As an input: requests whose tensors differ in size may share a batch."""
    label_filename: str = ""

    def as_optional(self) -> Self:
        return replace(self, optional=True)

    def as_ragged(self) -> Self:
        return replace(self, ragged=True)


def step_config(
    *,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    max_batch_size: int,
    instances: int,
    backend: str = "python",
    gpu: bool = False,
    max_queue_delay_us: int = 0,
    parameters: Mapping[str, str] | None = None,
) -> ModelConfig:
    """A step on the CPU or on every GPU (`instances` on each), dynamically batched."""
    config = pb.ModelConfig(backend=backend, max_batch_size=max_batch_size)
    kind = pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=instances)
    config.dynamic_batching.SetInParent()  # even when empty: without it requests are never merged
    config.dynamic_batching.max_queue_delay_microseconds = max_queue_delay_us
    _add_inputs(config, inputs)
    _add_outputs(config, outputs)
    for name, value in sorted((parameters or {}).items()):
        config.parameters[name].string_value = value
    return config


def ensemble_config(
    name: str,
    *,
    steps: Sequence[ModelConfig],
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    optional_inputs: bool,
    max_batch_size: int,
) -> ModelConfig:
    """A linear chain of `steps`, whose tensors pass under their own names, between the public `inputs` and `outputs`.

    Triton computes every output that an ensemble maps, so only what somebody uses is mapped. `optional_inputs` of the
    steps are given or left out, all together.
    """
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=max_batch_size)
    _add_inputs(config, inputs)
    _add_outputs(config, outputs)
    given = {
        step.name: [tensor.name for tensor in step.input if optional_inputs or not tensor.optional] for step in steps
    }
    used = {tensor.name for tensor in config.output}.union(*given.values())
    for step in steps:
        entry = config.ensemble_scheduling.step.add(model_name=step.name, model_version=-1)
        for tensor in given[step.name]:
            entry.input_map[tensor] = tensor
        for tensor in step.output:
            if tensor.name in used:
                entry.output_map[tensor.name] = tensor.name
    return config


def to_pbtxt(config: ModelConfig) -> str:
    """Text that Triton reads; equal configurations give equal text."""
    return str(text_format.MessageToString(config))


def _add_inputs(config: ModelConfig, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        config.input.add(
            name=tensor.name,
            data_type=pb.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            optional=tensor.optional,
            allow_ragged_batch=tensor.ragged,
        )


def _add_outputs(config: ModelConfig, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        config.output.add(
            name=tensor.name,
            data_type=pb.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            label_filename=tensor.label_filename,
        )
