"""The gpu lane: which engines it serves, and what it refuses. `gpu_steps` has its steps."""

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from slipway.contract import Bundle, BundleEngine, Choice, Lane, PlanSettings, RepositoryError
from slipway.contract.base_bundle import AnyEngine_co, Base, BaseEngine, Owner
from slipway.contract.engine import plan_name
from slipway.contract.installed import NAMES
from slipway.contract.serving import Serving
from slipway.contract.shared_rules import (
    FALLBACKS,
    SERVED,
    NotChosenError,
    chosen_plans,
    fallback_engine,
    listed,
    plan_folders,
)
from slipway.lint.gpu_lane import gpus_of, pool_bytes
from slipway.repository.classifier import Classifier, Networks
from slipway.repository.config import ModelConfig
from slipway.repository.gpu_steps import DECODER, chain
from slipway.repository.gpu_steps import to_outputs as base_steps
from slipway.repository.heads import ServedBase
from slipway.repository.served import AnyServed
from slipway.system.text import command

__all__ = [
    "DECODER",
    "SERVE_VERB",
    "base_steps",
    "chain",
    "check",
    "describe",
    "how_to_make",
    "pick",
    "pick_base",
    "settle",
]

SERVE_VERB = "slipway container serve"
PINNED_POOL_BYTES = 256 << 20
"""Triton's own default."""
DECIDE = "set serving.gpu.fallback: onnxruntime, in the fleet file, or in the spec and export it again"


def pick(bundle: Bundle, engines: Path, serving: Serving) -> Classifier:
    """The classifier with the plan that was measured to be the fastest, for each compute capability of which one passed
    its gate; where no plan can be served and `serving.gpu.fallback` says so, with the engine of ONNX Runtime."""
    found = _picked(bundle, engines, serving)
    return Classifier(bundle, found.engine, found.others, choices=found.choices, failed_plans=found.failed_plans)


def pick_base(base: Base, engines: Path, name: str, serving: Serving) -> ServedBase:
    """The base with engines that were picked as those of a classifier."""
    found = _picked(base, engines, serving)
    return ServedBase(name, base, found.engine, serving, found.others, found.choices, found.failed_plans)


@dataclass(frozen=True)
class _Picked(Generic[AnyEngine_co]):
    """The engines of a classifier or a base that are served."""

    engine: AnyEngine_co
    others: tuple[AnyEngine_co, ...] = ()
    choices: tuple[Choice, ...] = ()
    failed_plans: tuple[str, ...] = ()


def _picked(owner: Owner[AnyEngine_co], engines: Path, serving: Serving) -> _Picked[AnyEngine_co]:
    if not listed(owner.spec, lane="gpu"):
        raise RepositoryError(
            f"{owner.path}: the spec lists only {', '.join(owner.spec.precisions)}, but the gpu lane serves one of "
            f"{', '.join(SERVED['gpu'])}; list one in its precisions and build the bundle again"
        )
    try:
        chosen = chosen_plans(owner, engines)
    except NotChosenError as error:
        choose = command("slipway choose", owner.path, "--engines", engines, "--target", "tensorrt")
        raise RepositoryError(
            f"{engines}: {error}; measure it on that GPU, in NVIDIA's image: {choose}, or take plans by name (--engine)"
        ) from None
    folders = plan_folders(owner.spec, engines)
    if not chosen:
        verdicts = {path.name: owner.open_engine(path).verdict for path in folders}
        reason = f"the accuracy gates say {verdicts}" if verdicts else "none was found"
        return _Picked(_without_a_plan(owner, engines, serving, reason))
    suffixes = tuple(engine.path.name.rpartition("-")[2] for _, engine in chosen)
    left_out = tuple(path.name for path in folders if not path.name.endswith(suffixes))
    first, *others = (engine for _, engine in chosen)
    return _Picked(first, tuple(others), tuple(choice for choice, _ in chosen), left_out)


def _without_a_plan(owner: Owner[AnyEngine_co], engines: Path, serving: Serving, reason: str) -> AnyEngine_co:
    """The engine of ONNX Runtime. Raises RepositoryError: there is none, or it is not wanted."""
    precisions = ", ".join(listed(owner.spec, lane="gpu"))
    no_plan = f"{engines}: no TensorRT plan of {precisions} to serve: {reason}"
    if serving.gpu.fallback == "none":
        raise RepositoryError(
            f"{no_plan}; {how_to_make(owner, engines)}. Or serve the graph without a plan, more slowly: {DECIDE}, and "
            f"{_compile(owner, engines, 'onnxruntime')}"
        )
    engine = fallback_engine(owner, engines)
    if engine is None:
        folders = sorted(engines.glob("onnxruntime-*"))
        verdicts = {folder.name: owner.open_engine(folder).verdict for folder in folders}
        fallback = f"the accuracy gates say {verdicts}" if verdicts else "none was found"
        raise RepositoryError(
            f"{no_plan}; and no engine of ONNX Runtime (serving.gpu.fallback): {fallback}; make one of "
            f"{', '.join(FALLBACKS)} with {_compile(owner, engines, 'onnxruntime')}"
        )
    return engine


def how_to_make(bundle: Owner[Any], engines: Path) -> str:
    arguments = (bundle.path, "--graphs", bundle.path.parent / "graphs", "--out", engines)
    return (
        f"make it on the GPU that serves, with {command('slipway container', 'compile', *arguments, '--run')} (in "
        f"NVIDIA's image), or, where TensorRT is installed, {_compile(bundle, engines, 'tensorrt')}"
    )


def _compile(bundle: Owner[Any], engines: Path, target: str) -> str:
    given = (bundle.path, "--graphs", bundle.path.parent / "graphs", "--out", engines, "--target", target)
    return command("slipway compile", *given)


def check(versions: Sequence[Classifier], bases: Sequence[ServedBase]) -> None:
    """Raises RepositoryError: a version or a base cannot be served, or plans are of several TensorRT versions."""
    whole = [version for version in versions if version.base is None]
    served: list[AnyServed] = [*whole, *bases]
    for each in served:
        (_check_fallback if each.falls_back else _check_plans)(each)
    with_plans = [each for each in served if not each.falls_back]
    _check_one_tensorrt(with_plans)
    _check_one_decoder(with_plans)


def _check_fallback(served: AnyServed) -> None:
    """Raises RepositoryError: nobody decided that ONNX Runtime serves it, or there is another engine beside it."""
    path = served.engine.path
    if served.others:
        folders = ", ".join(str(engine.path) for engine in served.others)
        raise RepositoryError(f"{path}: ONNX Runtime serves every GPU with one engine; leave out {folders}")
    if served.serving.gpu.fallback != "onnxruntime":
        raise RepositoryError(
            f"{path}: an engine of ONNX Runtime, which is served only where that was decided: {DECIDE}; or give a "
            "TensorRT plan"
        )


def _check_plans(served: AnyServed) -> None:
    """Raises RepositoryError: a plan is missing or takes too small a batch, or plans are not of one network."""
    largest = served.max_batch_size
    by_capability: dict[str, BundleEngine | BaseEngine] = {}
    for engine in served.engines:
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
        first, other = served.engine.settings, engine.settings
        for what in ("precision", "graph_sha256", "embedding_size"):
            if getattr(first, what) != getattr(other, what):
                raise RepositoryError(
                    f"{served.engine.path} and {engine.path}: {what} {str(getattr(first, what))[:12]} and "
                    f"{str(getattr(other, what))[:12]}; compile the plans of one classifier from one graph, or, where "
                    "the fastest precision differs from GPU to GPU, assemble a repository for each (--engine)"
                )


def _check_one_tensorrt(versions: Sequence[AnyServed]) -> None:
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


def _check_one_decoder(versions: Sequence[AnyServed]) -> None:
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


def _plan_of(engine: BundleEngine | BaseEngine) -> tuple[str, PlanSettings]:
    plan = engine.settings.plan
    if plan is None or plan.compute_capability is None:
        raise RepositoryError(
            f"{engine.path / 'engine.json'}: does not name the GPU that the plan was built for; compile it again"
        )
    if not (engine.path / plan_name(plan.compute_capability)).is_file():
        raise RepositoryError(f"{engine.path / plan_name(plan.compute_capability)}: missing; compile it again")
    return plan.compute_capability, plan


def settle(networks: Networks, *, sharing: Collection[str], cores: int | None) -> tuple[Networks, None]:  # noqa: ARG001
    """Return the networks unchanged: `serving.gpu` leaves nothing to the machine."""
    return networks, None


def describe(lane: Lane, networks: Networks, *, steps: Collection[ModelConfig], stand_ins: Set[str]) -> Lane:
    """`lane` with the plans, the graphs without a plan, and the memory and the GPUs that the steps need."""
    plans = [plan for one in networks.served for engine in one.engines if (plan := engine.settings.plan)]
    fallback = {one.name: one.engine.settings.name for one in networks.classifiers if one.falls_back}
    bases = {}
    for base in networks.bases:
        heads = lane.bases[base.name].heads
        engines, stood_in = tuple(engine.path.name for engine in base.engines), tuple(sorted(stand_ins & {*heads}))
        bases[base.name] = lane.bases[base.name].model_copy(update={"engines": engines, "stand_ins": stood_in})
        fallback |= dict.fromkeys(heads, base.engine.settings.name) if base.falls_back else {}
    pool = pool_bytes(steps)
    found = {
        "bases": bases,
        "fallback": fallback or None,
        "tensorrt_version_compatible": any(plan.version_compatible for plan in plans),
        "release": max((plan.release for plan in plans if plan.release), default=None),
        "tensorrt": _only(plan.version for plan in plans if not plan.version_compatible),
        "dali": _only(plan.dali for plan in plans),
        "nvimgcodec": _only(plan.nvimgcodec for plan in plans),
        "cuda_pool_bytes": pool,
        "pinned_pool_bytes": max(pool, PINNED_POOL_BYTES),
        "gpus": gpus_of(steps),
    }
    return lane.model_copy(update=found)


def _only(versions: Iterable[str | None]) -> str | None:
    """The version that all plans have; `check` refuses several."""
    return next((version for version in versions if version is not None), None)
