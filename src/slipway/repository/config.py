"""`config.pbtxt` of the steps and the ensembles, made through Triton's own protobuf."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from google.protobuf import text_format

from slipway.contract import Preprocess
from slipway.contract.engine import INPUT
from slipway.contract.serving import Serving
from slipway.lint.proto import model_config

pb: Any = model_config(extra="build")

ModelConfig: TypeAlias = Any  # pb.ModelConfig, which has no type information


@dataclass(frozen=True)
class Tensor:
    """One tensor of a step or an ensemble; `dims` without the batch dimension."""

    name: str
    data_type: str
    """Triton's name of the type: `TYPE_FP32`, `TYPE_STRING`, …"""
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False
    """True lets requests whose input tensors differ in size share a batch."""
    label_filename: str = ""

    @property
    def described(self) -> Mapping[str, object]:
        """The fields that inputs and outputs share."""
        return {"name": self.name, "data_type": pb.DataType.Value(self.data_type), "dims": self.dims}


IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
IMAGE_STATUS = Tensor("image_status", "TYPE_INT32", (1,))
AFTER = Tensor("after", "TYPE_FP32", (-1,), optional=True)
"""Input of an engine step on the cpu lane, and of a group of heads. The step ignores its values, but waits until
another step has made it."""
EMBEDDING = "EMBEDDING"


def pixels_of(preprocess: Preprocess) -> Tensor:
    """Return the tensor that a decoder gives to an engine."""
    return Tensor(INPUT, "TYPE_UINT8", (*preprocess.input_size, 3))


@dataclass(frozen=True)
class WarmupFile:
    """One image's content of an input, raw as Triton takes it, in the folder `warmup` of the model."""

    name: str
    dims: tuple[int, ...]


NO_FILES: Mapping[str, WarmupFile] = MappingProxyType({})


def step_config(
    *,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    max_batch_size: int,
    instances: int,
    backend: str = "python",
    gpu: bool = False,
    gpus: Sequence[int] = (),
    parameters: Mapping[str, str] | None = None,
) -> ModelConfig:
    """A dynamically batched step with an unbounded queue, and `instances` on the CPU or on each of `gpus` (all GPUs
    where `gpu` is given without them)."""
    config = pb.ModelConfig(backend=backend, max_batch_size=max_batch_size)
    kind = pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=instances, gpus=gpus)
    config.dynamic_batching.SetInParent()  # even when empty: without it requests are never merged
    _add_tensors(config, inputs=inputs, outputs=outputs)
    for name, value in sorted((parameters or {}).items()):
        config.parameters[name].string_value = value
    return config


def set_delay(config: ModelConfig, delay_us: int, *, preferred_batch_size: int = 0) -> None:
    """Let the step delay requests to fill a batch of the preferred size; 0: of the largest."""
    config.dynamic_batching.max_queue_delay_microseconds = delay_us
    if preferred_batch_size:
        config.dynamic_batching.preferred_batch_size.append(preferred_batch_size)


def set_limits(config: ModelConfig, serving: Serving) -> None:
    """Bound the queue of an ensemble's first step, which alone may reject requests."""
    if serving.max_queue_size or serving.queue_timeout_ms:
        policy = config.dynamic_batching.default_queue_policy
        policy.timeout_action = pb.ModelQueuePolicy.REJECT
        policy.default_timeout_microseconds = 1000 * serving.queue_timeout_ms
        policy.allow_timeout_override = False
        policy.max_queue_size = serving.max_queue_size


def set_warmup(config: ModelConfig, *, batches: int, files: Mapping[str, WarmupFile] = NO_FILES) -> None:
    """Add batches of one image and of the largest size that Triton runs in each instance before the step is ready.

    An input is zeros, or the content of its file in `files` for every image.
    """
    for batch_size in sorted({1, config.max_batch_size}) if batches else ():
        sample = config.model_warmup.add(name=f"batch_{batch_size}", batch_size=batch_size, count=batches)
        for tensor in config.input:
            given = sample.inputs[tensor.name]
            given.data_type = tensor.data_type
            if file := files.get(tensor.name):
                given.dims.extend(file.dims)
                given.input_data_file = file.name
            else:
                given.dims.extend(tensor.dims)
                given.zero_data = True


def set_cuda_graphs(config: ModelConfig) -> None:
    """Capture CUDA graphs for batches of 1, 2, 4, 8 and so on, and of the largest size. By default, TensorRT's backend
    captures the first and the last only, and other batches run without a graph."""
    cuda = config.optimization.cuda
    cuda.graphs = True
    powers = (1 << power for power in range(config.max_batch_size.bit_length()))
    for batch_size in sorted({*powers, config.max_batch_size}):
        graph = cuda.graph_spec.add(batch_size=batch_size)
        for tensor in config.input:
            graph.input[tensor.name].dim.extend(tensor.dims)


def set_tensorrt_provider(config: ModelConfig, *, cache_prefix: str) -> None:
    """Let ONNX Runtime's TensorRT provider run a step, and its CUDA provider the nodes that TensorRT does not take.

    The provider builds one engine for batches of 1 to the largest. Without these shapes it builds again for every batch
    that is larger than any before. It names cached engines without looking at the weights, so `cache_prefix` must
    belong to one graph alone. They are kept in the folder in which the server was started, `/tmp` in our image: for a
    folder that is missing, two instances that load side by side would both ask, and the later one fails.
    """
    provider = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    (pixels,) = config.input
    for bound, batch_size in (("min", 1), ("opt", config.max_batch_size), ("max", config.max_batch_size)):
        shape = "x".join(str(size) for size in (batch_size, *pixels.dims))
        provider.parameters[f"trt_profile_{bound}_shapes"] = f"{pixels.name}:{shape}"
    provider.parameters["trt_engine_cache_enable"] = "true"
    provider.parameters["trt_engine_cache_path"] = "."
    provider.parameters["trt_engine_cache_prefix"] = cache_prefix


def ensemble_config(
    name: str,
    *,
    steps: Sequence[ModelConfig],
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    optional_inputs: bool,
    max_batch_size: int,
) -> ModelConfig:
    """A linear chain of `steps`, whose tensors keep their names, between the public `inputs` and `outputs`.

    Triton computes every output that an ensemble maps, so only used ones are mapped. Optional inputs of the steps
    are left out or, with `optional_inputs`, mapped wherever a step makes such a tensor.
    """
    config = empty_ensemble(name, inputs=inputs, outputs=outputs, max_batch_size=max_batch_size)
    made = {tensor.name for step in steps for tensor in step.output} if optional_inputs else set()
    given = {step.name: {t.name: t.name for t in step.input if not t.optional or t.name in made} for step in steps}
    used = {tensor.name for tensor in config.output}.union(*given.values())
    for step in steps:
        outputs_used = {tensor.name: tensor.name for tensor in step.output if tensor.name in used}
        add_step(config, step, inputs=given[step.name], outputs=outputs_used)
    return config


def empty_ensemble(
    name: str, *, inputs: Iterable[Tensor], outputs: Iterable[Tensor], max_batch_size: int
) -> ModelConfig:
    """An ensemble with its public tensors and no steps yet."""
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=max_batch_size)
    _add_tensors(config, inputs=inputs, outputs=outputs)
    return config


def add_step(config: ModelConfig, step: ModelConfig, *, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add `step` to an ensemble. The maps give the tensors that are used their names in the ensemble."""
    taken = {tensor.name: inputs[tensor.name] for tensor in step.input if tensor.name in inputs}
    made = {tensor.name: outputs[tensor.name] for tensor in step.output if tensor.name in outputs}
    add_mapped_step(config, step.name, inputs=taken, outputs=made)


def add_mapped_step(config: ModelConfig, name: str, *, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add a step as `add_step` does, for maps of tensors that the step is known to have: a group of heads has thousands
    of others."""
    entry = config.ensemble_scheduling.step.add(model_name=name, model_version=-1)
    entry.input_map.update(inputs)
    entry.output_map.update(outputs)


def to_pbtxt(config: ModelConfig) -> str:
    """Text that Triton reads; equal configurations give equal text."""
    return str(text_format.MessageToString(config))


def _add_tensors(config: ModelConfig, *, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
    for tensor in inputs:
        config.input.add(**tensor.described, optional=tensor.optional, allow_ragged_batch=tensor.ragged)
    for tensor in outputs:
        config.output.add(**tensor.described, label_filename=tensor.label_filename)
