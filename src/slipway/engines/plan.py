"""Reads a plan back: its layers and their precisions, and its answers on a GPU."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from slipway.contract import BundleEngine, CompileError, PlanSettings
from slipway.contract.base_bundle import BaseEngine
from slipway.contract.engine import plan_name
from slipway.engines.device import Device
from slipway.engines.tensorrt_library import (
    PlanTarget,
    compute_capability,
    explain,
    fresh_log,
    import_library,
    library_version,
    require_card,
    start,
)
from slipway.evaluation.predict import ServedNetwork
from slipway.onnx_graph import OUTPUTS, SERVED_INPUT
from slipway.steps.normalize import Float, Pixels

# TensorRT 10 writes "Thirty-two wide channel vectorized row major Int8 format" or, for generated kernels, "Half".
_PRECISIONS = {
    "float": "FP32",
    "fp32": "FP32",
    "half": "FP16",
    "fp16": "FP16",
    "bfloat16": "BF16",
    "bf16": "BF16",
    "int8": "INT8",
    "fp8": "FP8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
_WORD = re.compile(r"[a-z]+[0-9]*")
LayerTensor = TypedDict("LayerTensor", {"Format/Datatype": str, "Datatype": str, "DataType": str}, total=False)
"""TensorRT 10 has the first field; 11 splits it, and keeps the type in one of the others."""


class LayerWeights(TypedDict, total=False):
    Type: str


class PlanLayer(TypedDict, total=False):
    """A layer as the engine inspector describes it: the fields that are read here, of many more."""

    Inputs: list[LayerTensor]
    Outputs: list[LayerTensor]
    Weights: LayerWeights


def inspect(plan: bytes, *, target: PlanTarget, settings: PlanSettings) -> tuple[list[PlanLayer] | None, str]:
    """Every layer as the engine inspector describes it at the optimal batch size, or None and the reason."""
    if compute_capability() is None:
        return None, "reading a plan back needs a GPU, and this machine shows none"
    trt = import_library(target)
    log = fresh_log(trt)
    try:
        engine = _load(trt, plan, target=target, settings=settings, log=log)
    except CompileError as error:
        return None, str(error)
    # Without the shape of the input, TensorRT 10 gives "N/A due to dynamic shapes" for the type of every tensor.
    context, inspector = engine.create_execution_context(), engine.create_engine_inspector()
    context.set_input_shape(SERVED_INPUT, tuple(engine.get_tensor_profile_shape(SERVED_INPUT, 0)[1]))
    inspector.execution_context = context
    return parse_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def parse_layers(information: str) -> tuple[list[PlanLayer] | None, str]:
    """The layers in the inspector's JSON, or None and the reason if it only has names or is not JSON."""
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, LookupError, TypeError) as error:
        return None, f"the engine inspector's text cannot be read: {error!r}"
    if not all(isinstance(layer, dict) for layer in layers):
        return None, "the plan was built without detailed profiling verbosity, so it only names its layers"
    return layers, ""


def layer_precisions(layers: Sequence[PlanLayer]) -> dict[str, int]:
    """Number of layers that compute in each precision, for example `{"INT8": 53, "FP16": 4}`, most frequent first.

    A layer computes in the type of its weights, else of its first input (an INT8 convolution may write FP16), else of
    its first output; `other` if the inspector does not say.
    """
    return dict(Counter(map(_precision, layers)).most_common())


def _precision(layer: PlanLayer) -> str:
    tensors = [*layer.get("Inputs", ())[:1], *layer.get("Outputs", ())[:1]]
    texts = [tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("DataType") for tensor in tensors]
    for text in (layer.get("Weights", {}).get("Type"), *texts):
        for word in _WORD.findall(str(text).lower()):
            if word in _PRECISIONS:
                return _PRECISIONS[word]
    return "other"


class PlanRunner:
    """A TensorRT plan on the GPU: `UINT8 [n, H, W, 3]` in, logits and embedding out, like `engine_openvino.Engine`.

    Args:
        plan: a plan that `build_plan` made for the target `tensorrt`.
        settings: the settings that it was built with.

    Raises:
        CompileError: TensorRT or a GPU is missing; the plan is for another TensorRT or GPU, both of which are named;
            or it has unexpected tensors.
    """

    def __init__(self, plan: bytes, *, settings: PlanSettings) -> None:
        trt = import_library("tensorrt")
        require_card("running a plan")
        self._device = Device()
        self._log = fresh_log(trt)
        self._engine = _load(trt, plan, target="tensorrt", settings=settings, log=self._log)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in OUTPUTS if name in names]
        self._contexts = [self._context(profile) for profile in range(self._engine.num_optimization_profiles)]
        largest = tuple(self._engine.get_tensor_profile_shape(SERVED_INPUT, 0)[2])
        self.max_batch_size = int(largest[0])
        self._contexts[0].set_input_shape(SERVED_INPUT, largest)
        self._addresses = {name: self._allocate(name) for name in (SERVED_INPUT, *self._outputs)}

    def _context(self, profile: int) -> Any:
        """A context for one optimisation profile, as Triton makes one for each."""
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, self._device.stream):
            raise CompileError(f"the plan cannot be run on this GPU:{explain(self._log.errors)}")
        self._device.synchronize()
        return context

    def _allocate(self, name: str) -> int:
        """Memory for the largest batch of a tensor, in every context."""
        item_bytes = (np.uint8 if name == SERVED_INPUT else np.float32)().itemsize
        address = self._device.allocate(item_bytes * math.prod(self._contexts[0].get_tensor_shape(name)))
        for context in self._contexts:
            context.set_tensor_address(name, address)
        return address

    def run(self, pixels_nhwc_u8: Pixels) -> tuple[Float, Float]:
        """Return `logits_nc` `[n, classes]` and `embedding_nd` `[n, d]`; an output that the plan lacks is `[n, 0]`.

        A single image goes to the profile for single images, as in Triton.

        Raises:
            ValueError: the batch is empty or larger than the profile allows, or its images are of another size.
        """
        device, context = self._device, self._contexts[-1 if len(pixels_nhwc_u8) == 1 else 0]
        if not 1 <= len(pixels_nhwc_u8) <= self.max_batch_size:
            raise ValueError(f"a batch of {len(pixels_nhwc_u8)}; this plan takes 1 to {self.max_batch_size} images")
        pixels_nhwc_u8 = np.ascontiguousarray(pixels_nhwc_u8, np.uint8)
        if not context.set_input_shape(SERVED_INPUT, pixels_nhwc_u8.shape):
            raise ValueError(f"{SERVED_INPUT} of shape {pixels_nhwc_u8.shape} does not fit this plan")
        device.upload(pixels_nhwc_u8, self._addresses[SERVED_INPUT])
        if not context.execute_async_v3(device.stream):
            raise CompileError(f"the plan could not be run:{explain(self._log.errors)}")
        found = {name: np.empty(tuple(context.get_tensor_shape(name)), np.float32) for name in self._outputs}
        for name, array in found.items():
            device.download(self._addresses[name], array)
        device.synchronize()
        none = np.zeros((len(pixels_nhwc_u8), 0), np.float32)
        logits, embedding = OUTPUTS
        return found.get(logits, none), found.get(embedding, none)


def plan_network(engine: BundleEngine | BaseEngine) -> ServedNetwork:
    """The plan of an engine folder on this machine's GPU. Raises CompileError: as `PlanRunner`."""
    plan = engine.settings.plan
    assert plan is not None
    data = (engine.path / plan_name(plan.compute_capability)).read_bytes()
    return PlanRunner(data, settings=plan).run


def _load(trt: Any, plan: bytes, *, target: PlanTarget, settings: PlanSettings, log: Any) -> Any:
    """The engine of `plan` on this machine's GPU.

    Raises:
        CompileError: it is for another TensorRT or GPU, damaged, or not a plan of ours.
    """
    runtime = start(trt.Runtime, log)
    # A version-compatible plan contains the runtime of its own version, as host code.
    runtime.engine_host_code_allowed = settings.version_compatible
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        built_on = (
            "RTX GPUs" if settings.compute_capability is None else f"compute capability {settings.compute_capability}"
        )
        raise CompileError(
            f"the plan was built by {target} {settings.version} for {built_on}, but cannot be loaded by "
            f"{target} {library_version(trt)} on compute capability {compute_capability()}; compile it again here"
            f"{explain(log.errors)}"
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    types = {name: engine.get_tensor_dtype(name) for name in names}
    wanted = {SERVED_INPUT: trt.DataType.UINT8} | dict.fromkeys(OUTPUTS, trt.DataType.FLOAT)
    if types not in (wanted, *({name: wanted[name] for name in (SERVED_INPUT, output)} for output in OUTPUTS)):
        raise CompileError(
            f"the plan has tensors {types}; {SERVED_INPUT} of UINT8 and {' or '.join(OUTPUTS)} of FP32 (or both) are "
            "needed"
        )
    return engine
