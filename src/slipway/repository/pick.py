"""Which engines of a folder a lane serves."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Bundle, Engine, RepositoryError
from slipway.contract.lane import LaneName
from slipway.repository.classifier import Classifier
from slipway.repository.lanes import LANE_RULES


def open_engines(bundle: Bundle, folders: Sequence[Path], *, lane: LaneName) -> Classifier:
    """The classifier of engines that somebody named, the first of them with the decision that is served.

    Raises:
        RepositoryError: an engine that is not there; names the command that makes it.
        ManifestError: an engine that is not whole, or of another bundle.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RepositoryError(f"{folder}: no such engine; {LANE_RULES[lane].how_to_make(bundle, folder.parent)}")
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
    return LANE_RULES[lane].pick(bundle, engines)
