"""`GpuServing`: `serving.gpu` of a spec or a fleet, how the steps of a classifier run on the gpu lane."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from slipway.contract.base import Contract

Gpu = Annotated[int, Field(ge=0, le=63)]


def _distinct(gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    if len(set(gpus)) != len(gpus):
        raise ValueError("name each GPU once")
    return gpus


class GpuServing(Contract):
    """The rest of `serving` is the cpu lane's, except for max_queue_size, queue_timeout_ms and warmup_batches."""

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
