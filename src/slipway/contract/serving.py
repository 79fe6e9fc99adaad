"""`Serving`: how the steps of a classifier run in Triton; `CpuServing`: the cpu lane's part, with every choice made."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field

from slipway.contract.typed_file import Contract

Gpu = Annotated[int, Field(ge=0, le=63)]
Layout: TypeAlias = Literal["steps", "shared_decode", "fused"]
INSTANCES = 2
"""Instances of each step where a spec names the layout and nothing else."""
MERGED = 2
"""Largest batch of waiting requests that `auto` allows: on two cores at 100 requests/s, P99 was 57 ms with batches of
up to 2, 83 ms with 4 and 96 ms with 8 (docs/adr/0058)."""
MOST_INSTANCES = 64


def _distinct(gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    if len(set(gpus)) != len(gpus):
        raise ValueError("name each GPU once")
    return gpus


class GpuServing(Contract):
    """Settings of the gpu lane. The other keys of `serving` are the cpu lane's, except for max_queue_size,
    queue_timeout_ms and warmup_batches."""

    decode: Literal["isolated", "native"] = "isolated"
    """Decoder of the images. `isolated`: nvImageCodec, image by image, in the Python backend; a bad image harms no
    other. `native`: NVIDIA's DALI backend, for the highest rates; a bad image that the guard lets through fails every
    request of its batch."""
    decode_instances: int = Field(default=1, ge=1, le=16)
    """Decoders on each GPU."""
    decode_threads: int = Field(default=4, ge=2, le=64)
    """Threads of each decoder: the Huffman decoding of a JPEG is done on the CPU, and one thread starves the GPU."""
    engine_instances: int = Field(default=2, ge=1, le=16)
    """Engines on each GPU: one copies its batch while the other computes."""
    max_batch_size: int = Field(default=32, ge=1, le=128)
    """Largest batch of every step, and of the plan."""
    max_queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    """Longest time that the decoder and the engine each hold a request to fill a batch."""
    cuda_graphs: bool = True
    """Whether the engine captures CUDA graphs, for batches of 1, 2, 4, 8 and so on up to the largest."""
    gpus: Annotated[tuple[Gpu, ...], AfterValidator(_distinct)] = ()
    """GPUs that run this classifier, by Triton's numbers. Left out: every GPU that the server sees."""
    hardware_jpeg: bool = False
    """Whether the GPU's hardware JPEG decoder may be used. It reports success for a damaged image, whose pixels may
    then be those of another image."""
    fallback: Literal["none", "onnxruntime"] = "none"
    """Engine of a classifier without a TensorRT plan that passed its gate. `none`: it is not served. `onnxruntime`:
    Triton's ONNX Runtime backend serves the graph itself, on any GPU, after minutes at the first start and more slowly
    than a plan; `slipway compile --target onnxruntime` gates it. `cuda_graphs` is for plans alone."""


class Serving(Contract):
    """Options of the steps in Triton."""

    layout: Literal["auto", "steps", "shared_decode", "fused"] = "auto"
    """Models, and so processes, of the cpu lane. `steps`: preprocess, engine and answer. `shared_decode`: preprocess,
    which other classifiers share, and the rest. `fused`: all in one. `auto`: `fused` for the only classifier of a
    repository, `shared_decode` for several, `steps` for those of a multi ensemble. The gpu lane always has separate
    steps."""
    max_batch_size: int = Field(default=8, ge=1, le=128)
    """Most images in a request, and in a batch, on the cpu lane; `gpu.max_batch_size` is the gpu lane's."""
    preferred_batch_size: int | None = Field(default=None, ge=0, le=128)
    """Largest batch that waiting requests are merged into; a larger request runs alone. Small batches keep the
    tail short on a CPU, where a larger batch takes longer. 0: up to max_batch_size. The default is 2 with layout
    `auto`, else 0."""
    instances: int | None = Field(default=None, ge=1, le=64)
    """Processes of the step that runs the engine. On two cores, two processes of one thread beat one of two threads.
    With layout `auto`, the default fills the cores, or the classifier's share of them; else it is 2."""
    preprocess_instances: int | None = Field(default=None, ge=1, le=64)
    """Processes of the preprocess step. With layout `auto`, the default fills the cores; else it is `instances`."""
    threads: int = Field(default=1, ge=1, le=64)
    """Threads of each instance."""
    pinned: bool | None = None
    """True pins each instance on the cpu lane to as many cores as it has threads, the next instance to the next cores.
    Use it for a classifier that has the machine to itself; with several, one core may get too many instances. The
    default is true for the only classifier of a repository with layout `auto`, else false."""
    max_queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    """Longest time that the first step holds a request to fill a batch. 2 ms did not help where we tried it."""
    max_queue_size: int = Field(default=0, ge=0, le=10_000)
    """Requests that may wait at the first step; any more are rejected at once. 0: no limit."""
    queue_timeout_ms: int = Field(default=0, ge=0, le=60_000)
    """Longest wait at the first step, after which a request is rejected instead of answered late. 0: no limit."""
    warmup_batches: int = Field(default=2, ge=0, le=100)
    """Batches of one image, and of as many as waiting requests are merged into, that each instance runs before it
    reports ready."""
    gpu: GpuServing = GpuServing()
    """Settings of the gpu lane."""

    @property
    def common_batch_size(self) -> int:
        """The largest batch that every engine of either lane takes."""
        return min(self.max_batch_size, self.gpu.max_batch_size)


class CpuServing(Contract):
    """The part of a classifier's settings that `serving.layout: auto` chooses; `lane.json` has it."""

    layout: Layout
    """Models, and so processes, that answer."""
    preprocess_instances: int = Field(ge=1, le=MOST_INSTANCES)
    """Processes of the preprocess step, if the layout has one."""
    instances: int = Field(ge=1, le=MOST_INSTANCES)
    """Processes of the step that runs the engine."""
    threads: int = Field(ge=1, le=64)
    """Threads of each process."""
    pinned: bool
    """Whether each process keeps to cores of its own."""
    preferred_batch_size: int = Field(ge=0, le=128)
    """Number of waiting images that are merged at most; 0 means up to `max_batch_size`."""

    @classmethod
    def of(cls, serving: Serving) -> Self:
        """The settings of a `serving` in which nothing is left to choose; see `settle`."""
        return cls.model_validate({name: getattr(serving, name) for name in cls.model_fields})

    def __str__(self) -> str:
        """Describe the settings, for example `fused, 2 processes of 1 thread, pinned, batches of up to 2`."""
        several = "" if self.layout == "fused" else f"{self.preprocess_instances} + "
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        batches = f", batches of up to {self.preferred_batch_size}" if self.preferred_batch_size else ""
        processes = "process" if not several and self.instances == 1 else "processes"
        pinned = ", pinned" if self.pinned else ""
        return f"{self.layout}, {several}{self.instances} {processes} of {threads}{pinned}{batches}"


def settle(serving: Serving, *, cores: int, classifiers: int, shares_decode: bool = False) -> Serving:
    """`serving` with a value for everything that it leaves to the machine; given values stay (docs/adr/0058).

    Args:
        cores: of the machine that will serve.
        classifiers: number of classifiers that share them.
        shares_decode: whether an ensemble for several classifiers takes its steps.
    """
    chosen = CpuServing(
        layout=serving.layout if serving.layout != "auto" else auto_layout(classifiers, shares_decode=shares_decode)[0],
        **_processes(serving, cores=cores, classifiers=classifiers),
        threads=serving.threads,
        pinned=serving.layout == "auto" and classifiers == 1,
        preferred_batch_size=min(MERGED, serving.max_batch_size) if serving.layout == "auto" else 0,
    )
    open_fields = {name for name in CpuServing.model_fields if getattr(serving, name) in (None, "auto")}
    return serving.model_copy(update=chosen.model_dump(include=open_fields))


def is_settled(serving: Serving) -> bool:
    """Whether the machine makes no difference to `serving`."""
    return serving.layout != "auto"


def auto_layout(classifiers: int, *, shares_decode: bool) -> tuple[Layout, str]:
    """The layout that `auto` chooses, and why: `since it is the only classifier`. Arguments as for `settle`."""
    if shares_decode:
        return "steps", "since an ensemble for several classifiers takes its steps"
    if classifiers == 1:
        return "fused", "since it is the only classifier"
    return "shared_decode", f"since it shares the cores with {classifiers - 1} other{'s' * (classifiers > 2)}"


def _processes(serving: Serving, *, cores: int, classifiers: int) -> dict[str, int]:
    """One process of an engine for each of its classifier's share of the cores; decoders for all of them."""
    if serving.layout != "auto":
        instances = serving.instances or INSTANCES
        return {"instances": instances, "preprocess_instances": serving.preprocess_instances or instances}
    fitting = min(MOST_INSTANCES, max(1, cores // serving.threads))
    return {"instances": -(-fitting // classifiers), "preprocess_instances": fitting}
