"""Opens every bundle and engine that a fleet file names."""

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, Fleet
from slipway.contract.fleet import Version
from slipway.contract.lane import LaneName
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
        classifier = _open(version, root, fleet.lane)
        serving = fleet.serving_of(name, classifier.bundle.spec.serving)
        opened.setdefault(name, []).append(replace(classifier, served_as=name, settings=serving))
    return [replace(active, kept=tuple(kept)) for active, *kept in opened.values()]


def _open(version: Version, root: Path, lane: LaneName) -> Classifier:
    bundle = Bundle.open(root / version.bundle)
    if version.engines is not None:
        return pick_engines(bundle, root / version.engines, lane=lane)
    return open_engines(bundle, [root / folder for folder in version.engine], lane=lane)
