"""The gpu lane: the guard in Triton's Python backend, NVIDIA's DALI backend on `mixed`, and a TensorRT plan.

The DALI backend fails every request of a batch for one image that its decoder refuses, so the guard stands before it
and hands it a placeholder for what it refuses itself. What only the decoder finds still fails its batch, and no step
bounds the pixels that one batch decodes, as the cpu lane's preprocess does: with many large images at once, GPU memory
for `max_batch_size` of the largest is needed.

Triton warms the engine up with zeros. The decode step is not warmed up: its backend fails whatever is no image, so
zeros would keep it from loading, and the guard's placeholder, a PNG, does not reach nvJPEG. The guard is never cold.
"""

import json
from collections.abc import Sequence

from slipway.contract import Engine, PlanSettings, RepositoryError
from slipway.contract.engine import plan_name
from slipway.repository.classifier import IMAGE, IMAGE_STATUS, Classifier
from slipway.repository.config import Tensor, set_queue, set_warmup, step_config
from slipway.repository.step import GUARD, Content, StepModel

DECODER = "mixed"
"""nvJPEG, and what it cannot decode on the CPU."""
ENCODED = Tensor("encoded", "TYPE_UINT8", (-1,))


def check(classifier: Classifier) -> None:
    """Raises RepositoryError: a plan that is missing or takes too small a batch, or plans that are not one network."""
    largest = classifier.serving.max_batch_size
    by_capability: dict[str, Engine] = {}
    for engine in classifier.engines:
        capability, plan = _plan_of(engine)
        least, _, most = plan.batch_sizes
        if not least <= 1 <= largest <= most:
            raise RepositoryError(
                f"{engine.path}: the plan takes batches of {least} to {most} images, and the spec serves 1 to "
                f"{largest} (serving.max_batch_size); compile it again"
            )
        same = by_capability.setdefault(capability, engine)
        if same is not engine:
            raise RepositoryError(
                f"{same.path} and {engine.path}: two plans for compute capability {capability}; give one of them"
            )
        first, other = classifier.engine.settings, engine.settings
        for what in ("precision", "graph_sha256", "embedding_size"):
            if getattr(first, what) != getattr(other, what):
                raise RepositoryError(
                    f"{classifier.engine.path} and {engine.path}: {what} {str(getattr(first, what))[:12]} and "
                    f"{str(getattr(other, what))[:12]}; the plans of one classifier are compiled from one graph"
                )


def check_together(classifiers: Sequence[Classifier]) -> None:
    """Raises RepositoryError: plans of several TensorRT versions, though one server has one."""
    tied = {
        plan.version: engine
        for classifier in classifiers
        for engine in classifier.engines
        if not (plan := _plan_of(engine)[1]).version_compatible
    }
    if len(tied) > 1:
        plans = ", ".join(f"{engine.path} of {version}" for version, engine in sorted(tied.items()))
        raise RepositoryError(
            f"plans of several TensorRT versions: {plans}; a server has one and loads no other's: compile them again "
            "in one release, or with tensorrt.version_compatible in the spec"
        )


def _plan_of(engine: Engine) -> tuple[str, PlanSettings]:
    plan = engine.settings.plan
    if plan is None or plan.compute_capability is None:
        raise RepositoryError(
            f"{engine.path / 'engine.json'}: says nothing of the GPU that the plan was built for; compile it again"
        )
    if not (engine.path / plan_name(plan.compute_capability)).is_file():
        raise RepositoryError(f"{engine.path / plan_name(plan.compute_capability)}: missing; compile it again")
    return plan.compute_capability, plan


def chain(classifier: Classifier) -> tuple[StepModel, ...]:
    """The steps, in the order in which an image meets them."""
    return _guard_step(classifier), _decode_step(classifier), _engine_step(classifier), classifier.post_step()


def _guard_step(classifier: Classifier) -> StepModel:
    serving = classifier.serving
    config = step_config(
        inputs=[IMAGE],
        outputs=[ENCODED, IMAGE_STATUS],
        max_batch_size=serving.max_batch_size,
        instances=serving.instances,
    )
    set_queue(config, serving)
    return StepModel(
        "guard",
        config=config,
        code=("repository/backends/guard/model.py", *GUARD, "steps/guarded_batch.py"),
        files={},
    )


def _decode_step(classifier: Classifier) -> StepModel:
    serving = classifier.serving
    preprocess = classifier.bundle.preprocess.model_copy(update={"decoder": DECODER})
    sizes = {"batch_size": serving.max_batch_size, "num_threads": serving.threads}
    return StepModel(
        "decode",
        config=step_config(
            # Without the word ragged, requests of different sizes never share a batch, and nothing says so.
            inputs=[ENCODED.as_ragged()],
            outputs=[classifier.pixels],
            max_batch_size=serving.max_batch_size,
            instances=serving.instances,
            backend="dali",
            gpu=True,
            parameters={"num_threads": str(serving.threads)},
        ),
        code=("repository/backends/decode/dali.py", "steps/dali_graph.py"),
        files={
            "preprocess.json": Content.of(preprocess.to_json().encode()),
            "pipeline.json": Content.of((json.dumps(sizes, indent=2, sort_keys=True) + "\n").encode()),
        },
    )


def _engine_step(classifier: Classifier) -> StepModel:
    serving = classifier.serving
    config = step_config(
        inputs=[classifier.pixels],
        outputs=[classifier.logits, *classifier.embedding],
        max_batch_size=serving.max_batch_size,
        instances=serving.instances,
        backend="tensorrt",
        gpu=True,
    )
    config.platform = "tensorrt_plan"
    set_warmup(config, serving)
    files = {}
    for engine in sorted(classifier.engines, key=lambda engine: _number(_plan_of(engine)[0])):
        capability, plan = _plan_of(engine)
        name = plan_name(capability)
        config.cc_model_filenames[capability] = name
        if plan.hardware_compatibility == "ampere_plus" and not config.default_model_filename:
            # For every other GPU. Where no plan is for others, Triton's own default names a file that is not there,
            # and such a GPU is refused when the model is loaded.
            config.default_model_filename = name
        files[name] = Content.file(engine, name)
        files[f"{engine_name(capability)}.json"] = Content.file(engine, "engine.json")
    return StepModel("engine", config=config, files=files)


def _number(compute_capability: str) -> tuple[int, ...]:
    return tuple(map(int, compute_capability.split(".")))


def engine_name(compute_capability: str) -> str:
    """`engine_sm90`; with .json, the `engine.json` of `model_sm90.plan`."""
    return plan_name(compute_capability).replace("model", "engine").removesuffix(".plan")


def version_compatible(classifiers: Sequence[Classifier]) -> bool:
    """Whether Triton must be told that some plan may come from another TensorRT."""
    return any(_plan_of(engine)[1].version_compatible for c in classifiers for engine in c.engines)


def shm_bytes(classifier: Classifier) -> int:
    """Shared memory of a Python-backend instance: two full batches of images, each of them in and out again.

    A megabyte stands for an ordinary photograph; larger ones make the region grow once, and stay.
    """
    return 2 * classifier.serving.max_batch_size * 2 << 20
