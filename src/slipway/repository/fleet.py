"""Opens every bundle and engine that a fleet file names."""

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, Fleet
from slipway.contract.fleet import Version
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.pick import open_engines, pick_engines


def open_fleet(fleet: Fleet, *, root: Path) -> list[Classifier]:
    """The classifiers of `fleet`, every file checked; its paths are relative to `root`, the fleet file's folder.

    Raises:
        RepositoryError: an engine is missing; names the command that makes it.
        ManifestError: a bundle or an engine is missing or damaged.
    """
    versions = [(name, version) for name, c in fleet.classifiers.items() for version in (c.active, *c.keep)]
    opened: dict[str, list[Classifier]] = {}
    for name, version in tqdm(versions, "opening", unit="bundle", leave=False, disable=None, delay=1):
        bundle = Bundle.open(root / version.bundle)
        serving = fleet.serving_of(name, bundle.spec.serving)
        classifier = _open(bundle, version, root, lane=fleet.lane, serving=serving)
        opened.setdefault(name, []).append(replace(classifier, served_as=name, settings=serving))
    return [replace(active, kept=tuple(kept)) for active, *kept in opened.values()]


def _open(bundle: Bundle, version: Version, root: Path, *, lane: LaneName, serving: Serving) -> Classifier:
    if version.engines is not None:
        return pick_engines(bundle, root / version.engines, lane=lane, serving=serving)
    return open_engines(bundle, [root / folder for folder in version.engine], lane=lane)
