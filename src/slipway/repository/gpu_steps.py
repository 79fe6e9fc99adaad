"""The steps of the gpu lane, from encoded images to the answer.

    isolated   IMAGE ─ preprocess (Python, GPU): guard, nvImageCodec, DALI's fit ─ pixels_nhwc_u8 ─ engine ─ post
    native     IMAGE ─ guard (Python, CPU) ─ encoded ─ decode (DALI backend) ─ pixels_nhwc_u8 ─ engine ─ post

Of a base, the engine hands its embedding to a group of heads, which stands where `post` does.

The first step alone may reject; the steps that gain from batches, the decoder and the engine, may wait for them. Triton
warms every step up: what takes images with a photograph, the rest with zeros.
"""

import json
import struct
from dataclasses import replace
from importlib import resources

from slipway.contract import BundleEngine
from slipway.contract.base_bundle import BaseEngine
from slipway.contract.engine import plan_name
from slipway.contract.serving import INSTANCES
from slipway.repository.classifier import Classifier
from slipway.repository.config import (
    IMAGE,
    IMAGE_STATUS,
    ModelConfig,
    Tensor,
    WarmupFile,
    set_cuda_graphs,
    set_delay,
    set_limits,
    set_tensorrt_provider,
    set_warmup,
    step_config,
)
from slipway.repository.heads import engine_part
from slipway.repository.served import AnyServed
from slipway.repository.step import GUARD, PREPROCESS_STEP_CODE, Content, StepModel

DECODER = "mixed"
"""nvJPEG, and what it cannot decode on the CPU."""
ENCODED = Tensor("encoded", "TYPE_UINT8", (-1,))


def chain(classifier: Classifier) -> tuple[StepModel, ...]:
    """The steps, in the order in which an image meets them."""
    post = classifier.post_step()
    set_warmup(post.config, batches=classifier.serving.warmup_batches)
    return *to_outputs(classifier), post


def to_outputs(served: AnyServed) -> tuple[StepModel, ...]:
    """The steps from an image to the outputs of the engine."""
    native = served.serving.gpu.decode == "native"
    first = (_guard_step(served), _decode_step(served)) if native else (_isolated_step(served),)
    return *first, _fallback_step(served) if served.falls_back else _engine_step(served)


def _isolated_step(served: AnyServed) -> StepModel:
    serving, gpu = served.serving, served.serving.gpu
    parameters = {"threads": str(gpu.decode_threads)}
    if gpu.hardware_jpeg:
        parameters["hardware_jpeg"] = "true"
    config = step_config(
        inputs=[IMAGE],
        outputs=[served.pixels, IMAGE_STATUS],
        max_batch_size=gpu.max_batch_size,
        instances=gpu.decode_instances,
        gpu=True,
        gpus=gpu.gpus,
        parameters=parameters,
    )
    set_delay(config, gpu.max_queue_delay_us)
    set_limits(config, serving)
    return StepModel(
        "preprocess",
        config=config,
        code=PREPROCESS_STEP_CODE,
        files={"preprocess.json": _preprocess(served)},
        warmup=_warm_image(config, served),
    )


def _guard_step(served: AnyServed) -> StepModel:
    config = step_config(
        inputs=[IMAGE],
        outputs=[ENCODED, IMAGE_STATUS],
        max_batch_size=served.max_batch_size,
        instances=served.serving.instances or INSTANCES,
    )
    set_limits(config, served.serving)
    return StepModel(
        "guard",
        config=config,
        code=(
            "repository/backends/guard/model.py",
            *GUARD,
            *("steps/batch_limits.py", "steps/guarded_batch.py"),
        ),
        files={},
        warmup=_warm_image(config, served),
    )


def _decode_step(served: AnyServed) -> StepModel:
    gpu = served.serving.gpu
    config = step_config(
        # Without the word ragged, requests of different sizes never share a batch, and nothing says so.
        inputs=[replace(ENCODED, ragged=True)],
        outputs=[served.pixels],
        max_batch_size=gpu.max_batch_size,
        instances=gpu.decode_instances,
        backend="dali",
        gpu=True,
        gpus=gpu.gpus,
        parameters={"num_threads": str(gpu.decode_threads)},
    )
    set_delay(config, gpu.max_queue_delay_us)
    pipeline = {
        "batch_size": gpu.max_batch_size,
        "num_threads": gpu.decode_threads,
        "hardware_jpeg": gpu.hardware_jpeg,
    }
    photograph = _photograph()
    batches = served.serving.warmup_batches
    set_warmup(config, batches=batches, files={"encoded": WarmupFile("photograph.jpg", (len(photograph),))})
    return StepModel(
        "decode",
        config=config,
        code=("repository/backends/decode/dali.py", "steps/dali_graph.py", "steps/geometry.py"),
        files={
            "preprocess.json": _preprocess(served),
            "pipeline.json": Content.of((json.dumps(pipeline, indent=2, sort_keys=True) + "\n").encode()),
        },
        warmup={"photograph.jpg": Content.of(photograph)} if batches else {},
    )


def _preprocess(served: AnyServed) -> Content:
    return Content.of(served.preprocess.for_decoding(decoder=DECODER).encode())


def _warm_image(config: ModelConfig, served: AnyServed) -> dict[str, Content]:
    """The file for the warm-up of a step that takes IMAGE: in a tensor of strings, a length stands before each."""
    batches = served.serving.warmup_batches
    set_warmup(config, batches=batches, files={IMAGE.name: WarmupFile("photograph", IMAGE.dims)})
    photograph = _photograph()
    return {"photograph": Content.of(struct.pack("<I", len(photograph)) + photograph)} if batches else {}


def _photograph() -> bytes:
    """A JPEG of 512 pixels a side, in baseline 4:2:0 as cameras write it."""
    return (resources.files("slipway") / "repository/photograph.jpg").read_bytes()


def _engine_config(served: AnyServed, *, backend: str) -> ModelConfig:
    gpu = served.serving.gpu
    config = step_config(
        inputs=[served.pixels],
        outputs=served.outputs,
        max_batch_size=gpu.max_batch_size,
        instances=gpu.engine_instances,
        backend=backend,
        gpu=True,
        gpus=gpu.gpus,
    )
    set_delay(config, gpu.max_queue_delay_us)
    set_warmup(config, batches=served.serving.warmup_batches)
    return config


def _fallback_step(served: AnyServed) -> StepModel:
    """The graph in Triton's ONNX Runtime backend, where there is no plan."""
    engine = served.engine
    config = _engine_config(served, backend="onnxruntime")
    set_tensorrt_provider(config, cache_prefix=f"slipway-{engine.settings.graph_sha256}")
    files = {
        "model.onnx": Content.file(engine, "model.onnx"),
        f"{engine_part(engine)}.json": Content.file(engine, "engine.json"),
    }
    return StepModel("engine", config=config, files=files)


def _engine_step(served: AnyServed) -> StepModel:
    gpu = served.serving.gpu
    config = _engine_config(served, backend="tensorrt")
    config.platform = "tensorrt_plan"
    if gpu.cuda_graphs:
        set_cuda_graphs(config)
    plans = [engine.settings.plan for engine in served.engines]
    if all(plan is not None and plan.single_image_profile for plan in plans):
        # The backend takes the profile whose optimal batch is nearest; unasked, it takes the first alone.
        config.instance_group[0].profile.extend(["0", "1"])
    files = {}
    for engine in sorted(served.engines, key=_capability):
        plan = engine.settings.plan
        assert plan is not None  # checked before anything is assembled, and the next too
        assert plan.compute_capability is not None
        name = plan_name(plan.compute_capability)
        config.cc_model_filenames[plan.compute_capability] = name
        if plan.hardware_compatibility == "ampere_plus" and not config.default_model_filename:
            # For every other GPU. Where no plan is for others, Triton's own default names a file that is not there,
            # and such a GPU is refused when the model is loaded.
            config.default_model_filename = name
        files[name] = Content.file(engine, name)
        files[f"{engine_part(engine)}.json"] = Content.file(engine, "engine.json")
    return StepModel("engine", config=config, files=files)


def _capability(engine: BundleEngine | BaseEngine) -> tuple[int, ...]:
    plan = engine.settings.plan
    return tuple(map(int, (plan.compute_capability or "0").split("."))) if plan else ()
