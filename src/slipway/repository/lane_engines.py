"""Picks the engines of a folder that a lane serves."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Bundle, BundleEngine, RepositoryError
from slipway.contract.engine import LANES
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.lanes import LANE_RULES


def open_engines(bundle: Bundle, folders: Sequence[Path], *, lane: LaneName) -> Classifier:
    """The classifier with the named engines; the first one's decision is served.

    Raises:
        RepositoryError: an engine is missing; names the command that makes it.
        ManifestError: an engine is damaged, or belongs to another bundle.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RepositoryError(f"{folder}: no such engine; {_remedy(bundle, folder, lane)}")
    first, *others = (BundleEngine.open(folder, bundle=bundle) for folder in folders)
    return Classifier(bundle, first, tuple(others))


def _remedy(bundle: Bundle, folder: Path, lane: LaneName) -> str:
    """Return a remedy for an engine `folder` that does not exist: another folder to give, or the command that makes
    it."""
    if there := sorted(path.parent.name for path in folder.parent.glob("*/engine.json")):
        return f"the engines in {folder.parent} are {', '.join(there)}"
    if folder.name.startswith(tuple(f"{target}-" for target in LANES)):  # the name of one that compile writes
        return LANE_RULES[lane].how_to_make(bundle, folder.parent)
    engines = bundle.path.parent / "engines"
    return f"{LANE_RULES[lane].how_to_make(bundle, engines)}, and give one of the folders in {engines}"


def pick_engines(bundle: Bundle, engines: Path, *, lane: LaneName, serving: Serving | None = None) -> Classifier:
    """The classifier with the engines in `engines` that the lane serves.

    The cpu lane serves the engine that `choice.json` names. The gpu lane serves, for each compute capability, the plan
    that its own choice names; without any plan, the engine of ONNX Runtime, if `serving.gpu.fallback` says so.

    Args:
        serving: options from a fleet file; None takes those of the bundle's spec.

    Raises:
        RepositoryError: there is nothing to serve, or the choice is not of these engines; names the command to run.
        ManifestError: an engine is damaged, or belongs to another bundle.
    """
    return LANE_RULES[lane].pick(bundle, engines, serving or bundle.spec.serving)
