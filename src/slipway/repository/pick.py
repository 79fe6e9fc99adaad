"""Picks the engines of a folder that a lane serves."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Bundle, Engine, RepositoryError
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving
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
            raise RepositoryError(f"{folder}: no such engine; {LANE_RULES[lane].how_to_make(bundle, folder.parent)}")
    first, *others = (Engine.open(folder, bundle=bundle) for folder in folders)
    return Classifier(bundle, first, tuple(others))


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
