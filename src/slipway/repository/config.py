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
    label_filename: str = ""

    def as_optional(self) -> Self:
        return replace(self, optional=True)


@dataclass(frozen=True)
class Step:
    """One step of an ensemble: the model, and the tensors that pass in and out under their own names.

    Triton computes every output that an ensemble maps, so only what somebody uses is listed.
    """

    model: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


def step_config(
    *,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    max_batch_size: int,
    instances: int,
    max_queue_delay_us: int = 0,
    parameters: Mapping[str, str] | None = None,
) -> ModelConfig:
    """A Python-backend step on the CPU, dynamically batched."""
    config = pb.ModelConfig(backend="python", max_batch_size=max_batch_size)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=instances)
    config.dynamic_batching.SetInParent()  # even when empty: without it requests are never merged
    config.dynamic_batching.max_queue_delay_microseconds = max_queue_delay_us
    _add_inputs(config, inputs)
    _add_outputs(config, outputs)
    for name, value in sorted((parameters or {}).items()):
        config.parameters[name].string_value = value
    return config


def ensemble_config(
    name: str, *, steps: Iterable[Step], inputs: Iterable[Tensor], outputs: Iterable[Tensor], max_batch_size: int
) -> ModelConfig:
    """A linear chain of steps between the public `inputs` and `outputs`."""
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=max_batch_size)
    _add_inputs(config, inputs)
    _add_outputs(config, outputs)
    for step in steps:
        entry = config.ensemble_scheduling.step.add(model_name=step.model, model_version=-1)
        for tensor in step.inputs:
            entry.input_map[tensor.name] = tensor.name
        for tensor in step.outputs:
            entry.output_map[tensor.name] = tensor.name
    return config


def to_pbtxt(config: ModelConfig) -> str:
    """Text that Triton reads; equal configurations give equal text."""
    return str(text_format.MessageToString(config))


def _add_inputs(config: ModelConfig, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        config.input.add(
            name=tensor.name, data_type=pb.DataType.Value(tensor.data_type), dims=tensor.dims, optional=tensor.optional
        )


def _add_outputs(config: ModelConfig, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        config.output.add(
            name=tensor.name,
            data_type=pb.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            label_filename=tensor.label_filename,
        )
