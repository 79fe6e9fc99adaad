"""`Lane`: the contents of a model repository, for its server; `lane.json` at the root."""

from collections.abc import Collection
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias

from pydantic import Field

from slipway.contract.serving import CpuServing
from slipway.contract.typed_file import Contract

FILE_NAME = "lane.json"
LaneName: TypeAlias = Literal["cpu", "gpu"]
NO_PLAN = "no TensorRT plan; Triton's ONNX Runtime backend serves the graph itself, more slowly"
"""Remark on a classifier that `serving.gpu.fallback` serves."""
STAND_IN = "were fitted on a CPU to the typed graph of the plan, and not to the plan"
"""Remark on heads whose plan could not run on the machine that fitted them."""
MOST_GPUS = 8
"""GPUs of the largest usual server."""


class LaneBase(Contract):
    """A base of the repository, which its heads share."""

    id: str
    heads: tuple[str, ...]
    """Names of the classifiers that stand on the base."""
    serving: CpuServing | None = None
    """Settings of the base's step on the cpu lane; None on the gpu lane."""
    engines: tuple[str, ...] | None = None
    """Engines that serve the base on the gpu lane, such as `tensorrt-int8-sm90`."""
    stand_ins: tuple[str, ...] | None = None
    """Heads of the gpu lane that were fitted on a CPU to the embeddings of a plan's typed graph, since the GPU of the
    plan was missing."""


class Lane(Contract):
    """The lane, its classifiers, and the server options that no `config.pbtxt` can hold."""

    lane: LaneName
    classifiers: dict[str, str]
    """Id of the bundle that answers for each classifier."""
    kept: dict[str, tuple[str, ...]] = Field(default={})
    """Ids of each classifier's other bundles in the repository, for a rollback without a build."""
    multi: dict[str, tuple[str, ...]] = Field(default={})
    """Ensembles that answer for several classifiers from one decode, by name."""
    cores: int | None = Field(default=None, ge=1)
    """Number of cores that `serving` was chosen for; None if nothing was left to choose."""
    serving: dict[str, CpuServing] | None = None
    """Settings of each classifier's steps on the cpu lane, by classifier; None on the gpu lane."""
    bases: dict[str, LaneBase] = Field(default={})
    """Bases by name; their heads are among the classifiers."""
    shm_default_bytes: int = Field(ge=1 << 20)
    """Initial shared memory of each Python-backend instance. It exceeds the usual batch, since growing under load adds
    latency. All of it is allocated at once, and a container's limit counts it."""
    tensorrt_version_compatible: bool = False
    """True if a plan may come from another TensorRT version. The server then needs
    `--backend-config=tensorrt,version-compatible=true`."""
    fallback: dict[str, str] | None = None
    """Classifiers that Triton's ONNX Runtime backend serves, since no TensorRT plan does, with the engine of each, such
    as `onnxruntime-fp16`."""
    release: str | None = None
    """NVIDIA's release that compiled the plans, and whose server serves them."""
    tensorrt: str | None = None
    """Version of TensorRT that the plans are tied to; None if they are tied to none."""
    dali: str | None = None
    """Version of DALI that the plans were evaluated with."""
    nvimgcodec: str | None = None
    """Version of nvImageCodec that the plans were evaluated with."""
    cuda_pool_bytes: int | None = Field(default=None, ge=1)
    """CUDA memory on each GPU for the tensors between the steps. Beyond it they would go through host memory."""
    pinned_pool_bytes: int | None = Field(default=None, ge=1)
    """Pinned host memory for the same tensors; it takes those that do not fit into the CUDA pool."""
    gpus: tuple[int, ...] | None = None
    """GPUs that the steps name; None if they run on every GPU."""

    @property
    def libraries(self) -> dict[str, str | None]:
        """The versions that the server must have, since those made the numbers of the plans."""
        return {"tensorrt": self.tensorrt, "dali": self.dali, "nvimgcodec": self.nvimgcodec}

    @property
    def notes(self) -> list[str]:
        """A line for logs and reports on every classifier that is served without a TensorRT plan."""
        said, heads, fallback = list[str](), set[str](), self.fallback or {}
        for name, base in sorted(self.bases.items()):
            if base.stand_ins:
                said.append(f"base {name}: {len(base.stand_ins):,} of {len(base.heads):,} heads {STAND_IN}")
            if fallen_back := [fallback[head] for head in base.heads if head in fallback]:
                said.append(f"base {name}: {NO_PLAN} ({fallen_back[0]})")
            heads |= {*base.heads}
        whole = ((name, engine) for name, engine in sorted(fallback.items()) if name not in heads)
        return [*said, *(f"{name}: {NO_PLAN} ({engine})" for name, engine in whole)]

    def plain(self) -> dict[str, Any]:
        """The content of `lane.json`, which leaves out what does not apply to the lane."""
        plain = {name: value for name, value in super().plain().items() if value is not None}
        bases = plain.pop("bases", {})
        left = {name: {key: value for key, value in base.items() if value is not None} for name, base in bases.items()}
        return plain | ({"bases": left} if left else {})

    @property
    def memory_options(self) -> tuple[str, ...]:
        """Options of tritonserver for its pools. A GPU that is not there makes no difference."""
        if self.cuda_pool_bytes is None:
            return ()
        gpus = range(MOST_GPUS) if self.gpus is None else self.gpus
        return (
            f"--pinned-memory-pool-byte-size={self.pinned_pool_bytes}",
            *(f"--cuda-memory-pool-byte-size={gpu}:{self.cuda_pool_bytes}" for gpu in gpus),
        )

    def pools_fit(self, other: "Lane") -> bool:
        """Whether the pools of a server that was started for `other` are large enough for this lane."""
        if self.cuda_pool_bytes is None:
            return True
        wanted = range(MOST_GPUS) if self.gpus is None else self.gpus
        there = range(MOST_GPUS) if other.gpus is None else other.gpus
        return (
            self.cuda_pool_bytes <= (other.cuda_pool_bytes or 0)
            and (self.pinned_pool_bytes or 0) <= (other.pinned_pool_bytes or 0)
            and set(wanted) <= set(there)
        )

    @property
    def needs_gpu(self) -> bool:
        return self.lane == "gpu"

    def without(self, classifiers: Collection[str]) -> Self:
        """Return this lane without some of its classifiers."""
        left = {name: bundle for name, bundle in self.classifiers.items() if name not in classifiers}
        bases = {
            name: base.model_copy(update={"heads": tuple(head for head in base.heads if head in left)})
            for name, base in self.bases.items()
        }
        return type(self)(**self.fields() | {"classifiers": left, "bases": bases})  # a copy would keep `ensembles`

    @cached_property
    def ensembles(self) -> dict[str, tuple[str, ...]]:
        """Every model that clients may call, with the classifiers it answers for."""
        own = {name + suffix: (name,) for name in self.classifiers for suffix in ("", "_full")}
        return {**own, **self.multi}
