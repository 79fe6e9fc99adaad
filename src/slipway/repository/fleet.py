"""Opens every bundle, base and engine that a fleet file names."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, Fleet
from slipway.contract.base_bundle import Base
from slipway.contract.fleet import FleetBase, Version, overridden
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.groups import BaseHeads
from slipway.repository.heads import ServedBase
from slipway.repository.lane_engines import open_engines, pick_engines
from slipway.repository.lanes import LANE_RULES


def open_fleet(fleet: Fleet, *, root: Path) -> list[Classifier]:
    """The `classifiers` of a fleet file, every file checked; its paths are relative to `root`, its folder.

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


def open_bases(fleet: Fleet, *, root: Path) -> list[BaseHeads]:
    """The `bases` of a fleet file, with the folders of their heads, which are opened once it is known which changed.

    Raises:
        RepositoryError: a base was not compared with its engines.
        SpecError: a pattern finds no head.
        ManifestError: a base or its engine is missing or damaged.
    """
    return [_open_heads(fleet, name, base, root=root) for name, base in fleet.bases.items()]


def _open_heads(fleet: Fleet, name: str, given: FleetBase, *, root: Path) -> BaseHeads:
    base = open_base(root / given.base, name=name, lane=fleet.lane, serving=(fleet.serving, given.serving))
    if given.named:
        return BaseHeads(base, {head: root / folder for head, folder in given.named.items()})
    return BaseHeads.named(base, given.runs(root))


def open_base(run: Path, *, name: str = "", lane: LaneName = "cpu", serving: Sequence[Serving] = ()) -> ServedBase:
    """The base of a run, with the engine that the lane serves: the one that `choice.json` names, or on the gpu lane for
    each compute capability the plan that its own choice names.

    Args:
        serving: options that override those of its spec, the last ones first.

    Raises:
        RepositoryError: there is nothing to serve, or engines were not compared; names the command to run.
        ManifestError: the base or an engine is missing or damaged.
    """
    base = Base.open(run / "base")
    options = functools.reduce(overridden, serving, base.spec.serving)
    return LANE_RULES[lane].pick_base(base, run / "engines", name or base.spec.name, options)
