"""The cpu lane: guard, decoder and resize in one step of Triton's Python backend, OpenVINO in the next; or fewer steps.

These steps do the work. Each has as many instances as the spec says, with their own threads, and each instance is warm
before Triton reports it ready. Only the first step may wait for a batch to fill, or reject a request.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from slipway.contract import Bundle, Lane, RepositoryError
from slipway.contract.base_bundle import Base
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.serving import CpuServing, Serving, is_settled
from slipway.contract.serving import settle as settle_serving
from slipway.contract.shared_rules import NotChosenError, chosen_engine
from slipway.repository.classifier import Classifier, Networks
from slipway.repository.config import (
    AFTER,
    IMAGE,
    IMAGE_STATUS,
    ModelConfig,
    Tensor,
    set_delay,
    set_limits,
    step_config,
)
from slipway.repository.heads import ServedBase
from slipway.repository.step import (
    ANSWER_CODE,
    ENGINE_CODE,
    PREPROCESS_CODE,
    PREPROCESS_STEP_CODE,
    WORKER_CODE,
    Content,
    StepModel,
)
from slipway.system.text import command

DECODER = "cpu"
"""Where the lane decodes, by libjpeg-turbo and its like."""
SERVE_VERB = "slipway serve"
NONE: Mapping[str, str] = MappingProxyType({})


def pick(bundle: Bundle, engines: Path, serving: Serving) -> Classifier:  # noqa: ARG001  one engine for any
    """The classifier with the engine that `choice.json` names."""
    try:
        choice, engine = chosen_engine(bundle, engines)
    except NotChosenError as error:
        if not any(engines.glob(f"openvino-*/{MANIFEST}")):
            raise RepositoryError(f"{engines}: no engine of the cpu lane; {how_to_make(bundle, engines)}") from None
        again = command("slipway choose", bundle.path, "--engines", engines)
        raise RepositoryError(f"{engines}: {error}; run {again}") from None
    return Classifier(bundle, engine, choices=(choice,))


def how_to_make(bundle: Bundle, engines: Path) -> str:
    made = command("slipway compile", bundle.path, "--graphs", bundle.path.parent / "graphs", "--out", engines)
    return f"make it with {made}"


def check(versions: Sequence[Classifier], bases: Sequence[ServedBase]) -> None:  # noqa: ARG001  one engine each
    """Raises RepositoryError: a version has several engines, or its bundle was evaluated with another decoder."""
    for version in versions:
        if version.others:
            folders = ", ".join(str(engine.path) for engine in version.engines)
            raise RepositoryError(f"{folders}: the cpu lane serves one engine per classifier; give the faster one")
        if version.bundle.preprocess.decoder != DECODER:
            raise RepositoryError(
                f"{version.bundle.path}: evaluated with decoder {version.bundle.preprocess.decoder}, but the cpu "
                "lane decodes with libjpeg-turbo; evaluate it with decoder: cpu first"
            )


def settle(networks: Networks, *, sharing: Collection[str], cores: int | None) -> tuple[Networks, int | None]:
    """Return the networks with every choice made that `serving` leaves to the machine. A base counts as one classifier,
    whatever the number of its heads."""
    cores, served = cores or len(os.sched_getaffinity(0)), len(networks.classifiers) + len(networks.bases)

    def settled(version: Classifier, *, shares_decode: bool) -> Classifier:
        settings = settle_serving(version.serving, cores=cores, classifiers=served, shares_decode=shares_decode)
        kept = tuple(settled(one, shares_decode=shares_decode) for one in version.kept)
        return replace(version, settings=settings, kept=kept)

    def of_base(base: ServedBase) -> ServedBase:
        settings = settle_serving(base.serving, cores=cores, classifiers=served)
        fused = settings.model_copy(update={"layout": "fused"})  # one process decodes and computes the embedding
        return replace(base, settings=fused)

    given = [*(one.serving for one in networks.classifiers), *(base.serving for base in networks.bases)]
    classifiers = [settled(one, shares_decode=one.name in sharing) for one in networks.classifiers]
    found = Networks(classifiers, [of_base(base) for base in networks.bases])
    return found, None if all(map(is_settled, given)) else cores


def describe(lane: Lane, networks: Networks, *, steps: object, stand_ins: object) -> Lane:  # noqa: ARG001
    """`lane` with the processes of each step."""
    serving = {classifier.name: CpuServing.of(classifier.serving) for classifier in networks.classifiers}
    of_base = {base.name: {"serving": CpuServing.of(base.serving)} for base in networks.bases}
    bases = {name: base.model_copy(update=of_base[name]) for name, base in lane.bases.items()}
    return lane.model_copy(update={"serving": serving, "bases": bases})


def pick_base(base: Base, engines: Path, name: str, serving: Serving) -> ServedBase:
    """The base with the engine that `choice.json` names."""
    try:
        choice, engine = chosen_engine(base, engines)
    except NotChosenError as error:
        raise RepositoryError(f"{engines}: {error}; run slipway base again") from None
    return ServedBase(name, base, engine, serving, choices=(choice,))


def base_steps(base: ServedBase) -> tuple[StepModel, ...]:
    """The step that all heads of a base share: from encoded images to embeddings."""
    config = _config(
        base.serving,
        inputs=[IMAGE],
        outputs=[base.embedding, IMAGE_STATUS],
        first_core=base.first_core,
        parameters={"arithmetic": base.engine.settings.arithmetic},
    )
    _set_queue(config, base.serving)
    files = {name: Content.file(base.engine, name) for name in ("model.onnx", "engine.json")}
    preprocess = base.base.preprocess.for_decoding(decoder=DECODER)
    step = StepModel(
        "base",
        config=config,
        code=("repository/backends/base/model.py", *WORKER_CODE, *PREPROCESS_CODE, *ENGINE_CODE),
        files={"preprocess.json": Content.of(preprocess.encode()), **files},
    )
    return (step,)


def chain(classifier: Classifier) -> tuple[StepModel, ...]:
    """The steps in the order of processing: three, two or one, as `serving.layout` says."""
    if classifier.serving.layout == "fused":
        return (_fused_step(classifier),)
    if classifier.serving.layout == "shared_decode":
        return _preprocess_step(classifier), _answer_step(classifier)
    return _preprocess_step(classifier), _engine_step(classifier), classifier.post_step()


def _preprocess_step(classifier: Classifier) -> StepModel:
    outputs = [classifier.pixels, IMAGE_STATUS]
    first_core = _first_core(classifier, decodes=True)
    config = _config(classifier.serving, inputs=[IMAGE], outputs=outputs, first_core=first_core, decodes=True)
    _set_queue(config, classifier.serving)
    return StepModel("preprocess", config=config, code=PREPROCESS_STEP_CODE, files=_preprocess_files(classifier))


def _engine_step(classifier: Classifier) -> StepModel:
    outputs = [classifier.logits, *classifier.embedding]
    return StepModel(
        "engine",
        config=_engine_config(classifier, [classifier.pixels, AFTER], outputs),
        code=("repository/backends/engine/model.py", *WORKER_CODE, *ENGINE_CODE),
        files=_engine_files(classifier),
    )


def _answer_step(classifier: Classifier) -> StepModel:
    inputs, outputs = [classifier.pixels, IMAGE_STATUS], classifier.made_answer
    return StepModel(
        "answer",
        config=_engine_config(classifier, inputs, outputs),
        code=("repository/backends/answer/model.py", *WORKER_CODE, *ENGINE_CODE, *ANSWER_CODE),
        files={**_engine_files(classifier), **classifier.answer_files},
    )


def _fused_step(classifier: Classifier) -> StepModel:
    config = _engine_config(classifier, [IMAGE], classifier.made_answer)
    _set_queue(config, classifier.serving)
    return StepModel(
        "fused",
        config=config,
        code=("repository/backends/fused/model.py", *WORKER_CODE, *PREPROCESS_CODE, *ENGINE_CODE, *ANSWER_CODE),
        files={**_preprocess_files(classifier), **_engine_files(classifier), **classifier.answer_files},
    )


def _config(
    serving: Serving,
    *,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    first_core: int,
    decodes: bool = False,
    parameters: Mapping[str, str] = NONE,
) -> ModelConfig:
    """The configuration of the preprocess step (`decodes`), or of the step that runs the engine."""
    cpu = CpuServing.of(serving)
    pinned = {"first_core": str(first_core)} if cpu.pinned else {}
    return step_config(
        inputs=inputs,
        outputs=outputs,
        max_batch_size=serving.max_batch_size,
        instances=cpu.preprocess_instances if decodes else cpu.instances,
        parameters={
            "threads": str(cpu.threads),
            "warmup_batches": str(serving.warmup_batches),
            **pinned,
            **parameters,
        },
    )


def _first_core(classifier: Classifier, *, decodes: bool = False) -> int:
    """Return the core of the first instance of a pinned step, counted round and round; the next instances follow it.

    The engine's step begins where the preprocess step ends, so that they meet on a core only where cores are short.
    Chains begin anywhere, by their content: few of them spread out.
    """
    cpu = CpuServing.of(classifier.serving)
    if cpu.layout == "fused":
        return int(classifier.bundle.id[:4], 16)
    start = int(Content.file(classifier.bundle, "preprocess.json").sha256[:4], 16)
    return start if decodes else start + cpu.preprocess_instances * cpu.threads


def _set_queue(config: ModelConfig, serving: Serving) -> None:
    set_delay(config, serving.max_queue_delay_us, preferred_batch_size=CpuServing.of(serving).preferred_batch_size)
    set_limits(config, serving)


def _engine_config(classifier: Classifier, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> ModelConfig:
    parameters = {"arithmetic": classifier.engine.settings.arithmetic}
    first_core = _first_core(classifier)
    return _config(classifier.serving, inputs=inputs, outputs=outputs, first_core=first_core, parameters=parameters)


def _preprocess_files(classifier: Classifier) -> dict[str, Content]:
    return {"preprocess.json": Content.of(classifier.bundle.preprocess.for_decoding(decoder=DECODER).encode())}


def _engine_files(classifier: Classifier) -> dict[str, Content]:
    return {name: Content.file(classifier.engine, name) for name in ("model.onnx", "engine.json")}
