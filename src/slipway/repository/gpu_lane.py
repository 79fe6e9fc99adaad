"""The gpu lane: which engines it serves, and what it refuses. `gpu_steps` has its steps."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from slipway.contract import Bundle, Engine, PlanSettings, RepositoryError
from slipway.contract.engine import plan_name
from slipway.contract.installed import NAMES
from slipway.contract.selection import FALLBACKS, SERVED, NotChosenError, chosen_plans, fallback_engine, listed
from slipway.contract.spec import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.gpu_steps import DECODER, chain
from slipway.repository.heads import ServedBase
from slipway.repository.step import StepModel
from slipway.system.text import command

__all__ = ["DECODER", "SERVE_VERB", "base_step", "chain", "check", "how_to_make", "pick"]

SERVE_VERB = "slipway container serve"
DECIDE = "set serving.gpu.fallback: onnxruntime, in the fleet file, or in the spec and export it again"


def pick(bundle: Bundle, engines: Path, serving: Serving) -> Classifier:
    """The classifier with the plan that was measured to be the fastest, for each compute capability of which one passed
    its gate; where no plan can be served and `serving.gpu.fallback` says so, with the engine of ONNX Runtime."""
    wanted = listed(bundle.spec, lane="gpu")
    if not wanted:
        raise RepositoryError(
            f"{bundle.path}: the spec lists only {', '.join(bundle.spec.precisions)}, but the gpu lane serves one of "
            f"{', '.join(SERVED['gpu'])}; list one in its precisions and build the bundle again"
        )
    try:
        chosen = chosen_plans(bundle, engines)
    except NotChosenError as error:
        choose = command("slipway choose", bundle.path, "--engines", engines, "--target", "tensorrt")
        raise RepositoryError(
            f"{engines}: {error}; measure it on that GPU, in NVIDIA's image: {choose}, or take plans by name (--engine)"
        ) from None
    folders = _plan_folders(engines, wanted)
    if not chosen:
        verdicts = {path.name: Engine.open(path, bundle=bundle).verdict for path in folders}
        reason = f"the accuracy gates say {verdicts}" if verdicts else "none was found"
        return _without_a_plan(bundle, engines, serving, reason)
    suffixes = tuple(engine.path.name.rpartition("-")[2] for _, engine in chosen)
    left_out = tuple(path.name for path in folders if not path.name.endswith(suffixes))
    first, *others = (engine for _, engine in chosen)
    return Classifier(
        bundle, first, tuple(others), choices=tuple(choice for choice, _ in chosen), failed_plans=left_out
    )


def _without_a_plan(bundle: Bundle, engines: Path, serving: Serving, reason: str) -> Classifier:
    """The classifier with the engine of ONNX Runtime. Raises RepositoryError: there is none, or it is not wanted."""
    precisions = ", ".join(listed(bundle.spec, lane="gpu"))
    no_plan = f"{engines}: no TensorRT plan of {precisions} to serve: {reason}"
    if serving.gpu.fallback == "none":
        raise RepositoryError(
            f"{no_plan}; {how_to_make(bundle, engines)}. Or serve the graph without a plan, more slowly: {DECIDE}, and "
            f"{_compile(bundle, engines, 'onnxruntime')}"
        )
    engine = fallback_engine(bundle, engines)
    if engine is None:
        folders = sorted(engines.glob("onnxruntime-*"))
        verdicts = {folder.name: Engine.open(folder, bundle=bundle).verdict for folder in folders}
        fallback = f"the accuracy gates say {verdicts}" if verdicts else "none was found"
        raise RepositoryError(
            f"{no_plan}; and no engine of ONNX Runtime (serving.gpu.fallback): {fallback}; make one of "
            f"{', '.join(FALLBACKS)} with {_compile(bundle, engines, 'onnxruntime')}"
        )
    return Classifier(bundle, engine)


def _plan_folders(engines: Path, precisions: Iterable[str]) -> list[Path]:
    return sorted(path for precision in precisions for path in engines.glob(f"tensorrt-{precision}-sm*"))


def how_to_make(bundle: Bundle, engines: Path) -> str:
    arguments = (bundle.path, "--graphs", bundle.path.parent / "graphs", "--out", engines)
    return (
        f"make it on the GPU that serves, with {command('slipway container', 'compile', *arguments, '--run')} (in "
        f"NVIDIA's image), or, where TensorRT is installed, {_compile(bundle, engines, 'tensorrt')}"
    )


def _compile(bundle: Bundle, engines: Path, target: str) -> str:
    given = (bundle.path, "--graphs", bundle.path.parent / "graphs", "--out", engines, "--target", target)
    return command("slipway compile", *given)


def check(versions: Sequence[Classifier]) -> None:
    """Raises RepositoryError: a version cannot be served, or plans are of several TensorRT versions."""
    for version in versions:
        (_check_fallback if version.falls_back else _check_plans)(version)
    with_plans = [version for version in versions if not version.falls_back]
    _check_one_tensorrt(with_plans)
    _check_one_decoder(with_plans)


def _check_fallback(classifier: Classifier) -> None:
    """Raises RepositoryError: nobody decided that ONNX Runtime serves it, or there is another engine beside it."""
    path = classifier.engine.path
    if classifier.others:
        folders = ", ".join(str(engine.path) for engine in classifier.others)
        raise RepositoryError(f"{path}: ONNX Runtime serves every GPU with one engine; leave out {folders}")
    if classifier.serving.gpu.fallback != "onnxruntime":
        raise RepositoryError(
            f"{path}: an engine of ONNX Runtime, which is served only where that was decided: {DECIDE}; or give a "
            "TensorRT plan"
        )


def _check_plans(classifier: Classifier) -> None:
    """Raises RepositoryError: a plan is missing or takes too small a batch, or plans are not of one network."""
    largest = classifier.max_batch_size
    by_capability: dict[str, Engine] = {}
    for engine in classifier.engines:
        if engine.settings.target == "onnxruntime":
            raise RepositoryError(f"{engine.path}: not a TensorRT plan; give either plans or this engine alone")
        capability, plan = _plan_of(engine)
        least, _, most = plan.batch_sizes
        if not least <= 1 <= largest <= most:
            raise RepositoryError(
                f"{engine.path}: the plan takes batches of {least} to {most} images, but the spec serves 1 to "
                f"{largest} (serving.gpu.max_batch_size); compile it again"
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


def base_step(base: ServedBase) -> StepModel:
    raise RepositoryError(
        f"{base.name}: only the cpu lane serves heads on a base; move them to a fleet file of that lane"
    )
