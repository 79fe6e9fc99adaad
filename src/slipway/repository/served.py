"""The network of a lane's first steps: a classifier with a graph of its own, or the base of heads."""

from functools import cached_property
from typing import Generic, TypeAlias

from slipway.contract import BundleEngine, Preprocess
from slipway.contract.base_bundle import AnyEngine_co, BaseEngine, Owner
from slipway.contract.engine import LANES
from slipway.contract.serving import Serving
from slipway.repository.config import Tensor, pixels_of


class Served(Generic[AnyEngine_co]):
    """A network and its engines. Lower-case tensors live between steps; upper-case ones are public."""

    engine: AnyEngine_co
    """The engine that is served; of several, the one whose decision is."""
    others: tuple[AnyEngine_co, ...]
    """Engines of the same graph for other GPUs, on the gpu lane."""
    settings: Serving | None
    """Serving options from a fleet file; None takes those of the spec."""

    @property
    def owner(self) -> Owner[AnyEngine_co]:
        """The bundle or the base."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors of its engine."""
        raise NotImplementedError

    @property
    def engines(self) -> tuple[AnyEngine_co, ...]:
        return (self.engine, *self.others)

    @property
    def serving(self) -> Serving:
        return self.settings or self.owner.spec.serving

    @property
    def preprocess(self) -> Preprocess:
        return self.owner.preprocess

    @cached_property
    def pixels(self) -> Tensor:
        return pixels_of(self.preprocess)

    @property
    def on_gpu(self) -> bool:
        """Whether the gpu lane serves it."""
        return LANES[self.engine.settings.target] == "gpu"

    @property
    def falls_back(self) -> bool:
        """Whether Triton's ONNX Runtime backend serves its graph, instead of a TensorRT plan."""
        return self.engine.settings.target == "onnxruntime"

    @property
    def max_batch_size(self) -> int:
        """The largest batch of its ensembles and of each of their steps."""
        return self.serving.gpu.max_batch_size if self.on_gpu else self.serving.max_batch_size


AnyServed: TypeAlias = Served[BundleEngine | BaseEngine]
