"""The gpu lane: the guard in Triton's Python backend, NVIDIA's DALI backend on `mixed`, and a TensorRT plan.

The DALI backend fails every request of a batch for one image that its decoder rejects, so the guard comes first and
replaces the images that it refuses with a placeholder. An image that only the decoder rejects still fails its batch. No
step bounds the pixels that one batch decodes, as the cpu lane's preprocess does, so the GPU needs memory for
`max_batch_size` of the largest images.

Triton warms the engine up with zeros. The decode step is not warmed up: its backend fails anything that is not an
image, so zeros would keep it from loading, and the guard's placeholder, a PNG, does not reach nvJPEG. The guard needs
no warm-up.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from slipway.contract import Bundle, Engine, PlanSettings, RepositoryError
from slipway.contract.engine import plan_name
from slipway.contract.installed import NAMES
from slipway.contract.selection import SERVED, NotChosenError, chosen_plans, listed
from slipway.repository.classifier import IMAGE, IMAGE_STATUS, Classifier, engine_part
from slipway.repository.config import Tensor, set_queue, set_warmup, step_config
from slipway.repository.step import GUARD, Content, StepModel
from slipway.system.text import command

DECODER = "mixed"
"""DALI's `mixed` decoder is nvJPEG, and the CPU for images that nvJPEG cannot decode."""
SERVE_VERB = "slipway container serve"
WHY_NO_MULTI = (
    "the gpu lane has no ensembles of several classifiers, since TensorRT's engines would run in parallel, which "
    "crashes tritonserver 2.51"
)
ENCODED = Tensor("encoded", "TYPE_UINT8", (-1,))


def pick(bundle: Bundle, engines: Path) -> Classifier:
    """The classifier with the plan that was measured to be the fastest, for each compute capability."""
    wanted = listed(bundle.spec, lane="gpu")
    if not wanted:
        raise RepositoryError(
            f"{bundle.path}: the spec lists only {', '.join(bundle.spec.precisions)}, but the gpu lane serves one of "
            f"{', '.join(SERVED['gpu'])}; list one in its precisions and build the bundle again"
        )
    try:
        chosen = chosen_plans(bundle, engines)
    except NotChosenError as error:
        plans = [Engine.open(path, bundle=bundle) for path in _plan_folders(engines, wanted)]
        if any(plan.may_be_served for plan in plans):
            choose = command("slipway choose", bundle.path, "--engines", engines, "--target", "tensorrt")
            raise RepositoryError(
                f"{engines}: {error}; measure it on that GPU, in NVIDIA's image: {choose}, or take plans by name "
                "(--engine)"
            ) from None
        verdicts = {plan.path.name: plan.verdict for plan in plans}
        raise RepositoryError(
            f"{engines}: no TensorRT plan of {', '.join(wanted)} to serve: the accuracy gates say {verdicts}; "
            + how_to_make(bundle, engines)
        ) from None
    if not chosen:
        raise RepositoryError(
            f"{engines}: no TensorRT plan of {', '.join(wanted)} to serve: none was found; "
            + how_to_make(bundle, engines)
        )
    first, *others = (engine for _, engine in chosen)
    return Classifier(bundle, first, tuple(others), choices=tuple(choice for choice, _ in chosen))


def _plan_folders(engines: Path, precisions: Iterable[str]) -> list[Path]:
    return sorted(path for precision in precisions for path in engines.glob(f"tensorrt-{precision}-sm*"))


def how_to_make(bundle: Bundle, engines: Path) -> str:
    arguments = (bundle.path, "--graphs", engines.parent / "graphs", "--out", engines)
    return (
        f"make it on the GPU that serves, with {command('slipway container', 'compile', *arguments, '--run')} (in "
        f"NVIDIA's image), or, where TensorRT is installed, "
        f"{command('slipway compile', *arguments, '--target', 'tensorrt')}"
    )


def check(versions: Sequence[Classifier]) -> None:
    """Raises RepositoryError: a version cannot be served, or plans are of several TensorRT versions."""
    for version in versions:
        _check_plans(version)
    _check_one_tensorrt(versions)
    _check_one_decoder(versions)


def _check_plans(classifier: Classifier) -> None:
    """Raises RepositoryError: a plan is missing or takes too small a batch, or plans are not of one network."""
    largest = classifier.serving.max_batch_size
    by_capability: dict[str, Engine] = {}
    for engine in classifier.engines:
        capability, plan = _plan_of(engine)
        least, _, most = plan.batch_sizes
        if not least <= 1 <= largest <= most:
            raise RepositoryError(
                f"{engine.path}: the plan takes batches of {least} to {most} images, but the spec serves 1 to "
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
                    f"{str(getattr(other, what))[:12]}; compile the plans of one classifier from one graph, or, where "
                    "the fastest precision differs from GPU to GPU, assemble a repository for each (--engine)"
                )


def _check_one_tensorrt(versions: Sequence[Classifier]) -> None:
    """Raises RepositoryError: plans are of several TensorRT versions, although a server has one."""
    tied = {
        plan.version: engine
        for version in versions
        for engine in version.engines
        if not (plan := _plan_of(engine)[1]).version_compatible
    }
    if len(tied) > 1:
        plans = ", ".join(f"{engine.path} of {version}" for version, engine in sorted(tied.items()))
        raise RepositoryError(
            f"plans of several TensorRT versions: {plans}; a server has one version and loads no other: compile them "
            "again with one version, or with tensorrt.version_compatible in the spec"
        )


def _check_one_decoder(versions: Sequence[Classifier]) -> None:
    """Raises RepositoryError: plans that were evaluated with several decoders, though one server has one."""
    for field in ("dali", "nvimgcodec"):
        engines = (engine for version in versions for engine in version.engines)
        found = {known: engine for engine in engines if (known := getattr(_plan_of(engine)[1], field)) is not None}
        if len(found) > 1:
            plans = ", ".join(f"{engine.path} with {known}" for known, engine in sorted(found.items()))
            raise RepositoryError(
                f"plans that were evaluated with several versions of {NAMES[field]}: {plans}; a server has one: "
                "compile them again in one release"
            )


def _plan_of(engine: Engine) -> tuple[str, PlanSettings]:
    plan = engine.settings.plan
    if plan is None or plan.compute_capability is None:
        raise RepositoryError(
            f"{engine.path / 'engine.json'}: does not name the GPU that the plan was built for; compile it again"
        )
    if not (engine.path / plan_name(plan.compute_capability)).is_file():
        raise RepositoryError(f"{engine.path / plan_name(plan.compute_capability)}: missing; compile it again")
    return plan.compute_capability, plan


def chain(classifier: Classifier) -> tuple[StepModel, ...]:
    """The steps in the order of processing."""
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
            # Without `ragged`, requests of different sizes silently never share a batch.
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
            # For every other GPU. Without such a plan, Triton's own default names a file that does not exist, and the
            # model does not load on such a GPU.
            config.default_model_filename = name
        files[name] = Content.file(engine, name)
        files[f"{engine_part(engine)}.json"] = Content.file(engine, "engine.json")
    return StepModel("engine", config=config, files=files)


def _number(compute_capability: str) -> tuple[int, ...]:
    return tuple(map(int, compute_capability.split(".")))


def shm_bytes(classifier: Classifier) -> int:
    """Shared memory of a Python-backend instance: two full batches of images, each once in and once out.

    It allows a megabyte for an ordinary photograph; larger ones make the region grow once, for good.
    """
    return 2 * classifier.serving.max_batch_size * 2 << 20
