"""Which engines of a folder a lane serves, and the command that makes the one that is missing."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Bundle, Choice, Engine, RepositoryError
from slipway.contract.choice import FILE_NAME as CHOICE
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision
from slipway.repository.classifier import Classifier
from slipway.system.files import sha256_file
from slipway.system.text import command

GPU_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")
"""The fastest first; accuracy is the gate's."""


def open_engines(bundle: Bundle, folders: Sequence[Path], *, lane: LaneName) -> Classifier:
    """The classifier of engines that somebody named, the first of them with the decision that is served.

    Raises:
        RepositoryError: an engine that is not there; names the command that makes it.
        ManifestError: an engine that is not whole, or of another bundle.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RepositoryError(f"{folder}: no such engine; {_how_to_make(bundle, folder.parent, lane)}")
    first, *others = (Engine.open(folder, bundle=bundle) for folder in folders)
    return Classifier(bundle, first, tuple(others))


def pick_engines(bundle: Bundle, engines: Path, *, lane: LaneName) -> Classifier:
    """The classifier of what the lane serves of the engines in `engines`.

    cpu: the one that `choice.json` names. gpu: every plan of the first precision of int8, fp16 and fp32 that the spec
    lists and of which all plans passed their gates.

    Raises:
        RepositoryError: nothing to serve, or a choice that is not of these engines; names the command to run.
        ManifestError: an engine that is not whole, or of another bundle.
    """
    return _chosen(bundle, engines) if lane == "cpu" else _plans(bundle, engines)


def _chosen(bundle: Bundle, engines: Path) -> Classifier:
    again = command("slipway choose", bundle.path, "--engines", engines)
    if not (engines / CHOICE).is_file():
        if not any(engines.glob(f"openvino-*/{MANIFEST}")):
            raise RepositoryError(f"{engines}: no engine of the cpu lane; {_how_to_make(bundle, engines, 'cpu')}")
        raise RepositoryError(f"{engines}: no {CHOICE}, so nobody measured which engine is the fastest; run {again}")
    choice = Choice.read(engines / CHOICE)
    if choice.bundle != bundle.id:
        raise RepositoryError(
            f"{engines / CHOICE}: measured on bundle {choice.bundle:.12}, and the bundle given is {bundle.id:.12}; "
            f"run {again}"
        )
    chosen = {candidate.engine: candidate for candidate in choice.candidates}.get(choice.chosen)
    if chosen is None or Path(choice.chosen).name != choice.chosen or choice.chosen == "..":
        raise RepositoryError(f"{engines / CHOICE}: chose {choice.chosen!r}, which is none of its candidates; {again}")
    engine = Engine.open(engines / choice.chosen, bundle=bundle)
    if sha256_file(engine.path / MANIFEST) != chosen.manifest_sha256:
        raise RepositoryError(
            f"{engine.path}: compiled again since {engines / CHOICE} was measured, and may be slower now; run {again}"
        )
    return Classifier(bundle, engine, choice=choice)


def _plans(bundle: Bundle, engines: Path) -> Classifier:
    listed = [precision for precision in GPU_PRECISIONS if precision in bundle.spec.precisions]
    if not listed:
        raise RepositoryError(
            f"{bundle.path}: the spec lists {', '.join(bundle.spec.precisions)} alone, and the gpu lane serves one of "
            f"{', '.join(GPU_PRECISIONS)}; list one in its precisions and build the bundle again"
        )
    verdicts: dict[str, str] = {}
    for precision in listed:
        plans = [Engine.open(path, bundle=bundle) for path in sorted(engines.glob(f"tensorrt-{precision}-sm*"))]
        verdicts |= {plan.path.name: plan.verdict for plan in plans}
        # One that failed would leave its GPU without a plan, and another precision may serve them all.
        if plans and all(plan.may_be_served for plan in plans):
            return Classifier(bundle, plans[0], tuple(plans[1:]))
    found = f"the accuracy gates say {verdicts}" if verdicts else "it is not there"
    raise RepositoryError(
        f"{engines}: no TensorRT plan of {', '.join(listed)} to serve, {found}; {_how_to_make(bundle, engines, 'gpu')}"
    )


def _how_to_make(bundle: Bundle, engines: Path, lane: LaneName) -> str:
    arguments = (bundle.path, "--graphs", engines.parent / "graphs", "--out", engines)
    if lane == "cpu":
        return f"make it with {command('slipway compile', *arguments)}"
    return (
        f"make it on the GPU that serves, with {command('slipway container', 'compile', *arguments, '--run')} (in "
        f"NVIDIA's image), or, where TensorRT is installed, "
        f"{command('slipway compile', *arguments, '--target', 'tensorrt')}"
    )
