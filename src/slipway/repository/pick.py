"""Which engines of a folder a lane serves, and the command that makes the one that is missing."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Bundle, Engine, RepositoryError
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.selection import SERVED, NotChosenError, chosen_engine, listed, served_plans
from slipway.contract.spec import Precision
from slipway.repository.classifier import Classifier
from slipway.system.text import command


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
    try:
        choice, engine = chosen_engine(bundle, engines)
    except NotChosenError as error:
        if not any(engines.glob(f"openvino-*/{MANIFEST}")):
            raise RepositoryError(
                f"{engines}: no engine of the cpu lane; {_how_to_make(bundle, engines, 'cpu')}"
            ) from None
        again = command("slipway choose", bundle.path, "--engines", engines)
        raise RepositoryError(f"{engines}: {error}; run {again}") from None
    return Classifier(bundle, engine, choice=choice)


def _plans(bundle: Bundle, engines: Path) -> Classifier:
    wanted = listed(bundle.spec, lane="gpu")
    if not wanted:
        raise RepositoryError(
            f"{bundle.path}: the spec lists {', '.join(bundle.spec.precisions)} alone, and the gpu lane serves one of "
            f"{', '.join(SERVED['gpu'])}; list one in its precisions and build the bundle again"
        )
    verdicts: dict[str, str] = {}

    def opened(precision: Precision) -> list[Engine]:
        plans = [Engine.open(path, bundle=bundle) for path in sorted(engines.glob(f"tensorrt-{precision}-sm*"))]
        verdicts.update({plan.path.name: plan.verdict for plan in plans})
        return plans

    if served := served_plans(bundle.spec, opened):
        return Classifier(bundle, served[0], tuple(served[1:]))
    found = f"the accuracy gates say {verdicts}" if verdicts else "it is not there"
    raise RepositoryError(
        f"{engines}: no TensorRT plan of {', '.join(wanted)} to serve, {found}; {_how_to_make(bundle, engines, 'gpu')}"
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
