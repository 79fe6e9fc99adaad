"""The cpu lane: guard and DALI in one step, OpenVINO in the next, both in Triton's Python backend.

They are the work: as many instances of each as the spec says, each with its own threads, and each warm before Triton
calls it ready. Only the first step may wait for a batch to fill, or refuse a request.
"""

from slipway.contract import RepositoryError
from slipway.repository.classifier import AFTER, IMAGE, IMAGE_STATUS, Classifier
from slipway.repository.config import set_queue, step_config
from slipway.repository.step import Content, StepModel

DECODER = "cpu"
"""libjpeg-turbo."""


def check(classifier: Classifier) -> None:
    """Raises RepositoryError: more than one engine, or a bundle that was evaluated with another decoder."""
    if classifier.others:
        folders = ", ".join(str(engine.path) for engine in classifier.engines)
        raise RepositoryError(f"{folders}: the cpu lane serves one engine of a classifier; give the one that is faster")
    if classifier.bundle.preprocess.decoder != DECODER:
        raise RepositoryError(
            f"{classifier.bundle.path}: evaluated with decoder {classifier.bundle.preprocess.decoder}, and the cpu "
            "lane decodes with libjpeg-turbo; evaluate it with decoder: cpu first"
        )


def steps(classifier: Classifier) -> tuple[StepModel, ...]:
    """The steps before the answer, in their order."""
    bundle, engine, serving = classifier.bundle, classifier.engine, classifier.serving
    parameters = {"threads": str(serving.threads), "warmup_batches": str(serving.warmup_batches)}
    preprocess = StepModel(
        "preprocess",
        config=step_config(
            inputs=[IMAGE],
            outputs=[classifier.pixels, IMAGE_STATUS],
            max_batch_size=serving.max_batch_size,
            instances=serving.instances,
            parameters=parameters,
        ),
        code=(
            "repository/backends/preprocess/model.py",
            "steps/guard.py",
            "steps/dali_graph.py",
            "steps/preprocess_dali.py",
        ),
        files={"preprocess.json": Content.file(bundle, "preprocess.json")},
    )
    set_queue(preprocess.config, serving)
    network = StepModel(
        "engine",
        config=step_config(
            inputs=[classifier.pixels, AFTER],
            outputs=[classifier.logits, classifier.embedding],
            max_batch_size=serving.max_batch_size,
            instances=serving.instances,
            parameters={**parameters, "arithmetic": engine.settings.arithmetic},
        ),
        code=("repository/backends/engine/model.py", "steps/engine_openvino.py"),
        files={name: Content.file(engine, name) for name in ("model.onnx", "engine.json")},
    )
    return preprocess, network


def shm_bytes(classifier: Classifier) -> int:
    """Shared memory of a Python-backend instance: twice a full batch, so that one is read while one is written.

    A megabyte stands for an ordinary photograph; larger ones make the region grow once, and stay.
    """
    _, height, width = classifier.pixels.dims
    image_bytes = 3 * height * width * 4 + (1 << 20)
    megabytes = -(-2 * classifier.serving.max_batch_size * image_bytes >> 20)
    return megabytes << 20
