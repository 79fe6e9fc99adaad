"""Opens every bundle, base and engine that a fleet file names."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, Engine, Fleet, RepositoryError
from slipway.contract.base_bundle import Base
from slipway.contract.fleet import FleetBase, Version, overridden
from slipway.contract.lane import LaneName
from slipway.contract.spec import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.heads import ServedBase
from slipway.repository.lanes import LANE_RULES
from slipway.repository.pick import open_engines, pick_engines
from slipway.system.text import command


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
    whole = [replace(active, kept=tuple(kept)) for active, *kept in opened.values()]
    return [*whole, *(head for name, base in fleet.bases.items() for head in _heads(fleet, name, base, root=root))]


def _open(bundle: Bundle, version: Version, root: Path, *, lane: LaneName, serving: Serving) -> Classifier:
    if version.engines is not None:
        return pick_engines(bundle, root / version.engines, lane=lane, serving=serving)
    return open_engines(bundle, [root / folder for folder in version.engine], lane=lane)


def _heads(fleet: Fleet, name: str, given: FleetBase, *, root: Path) -> Iterator[Classifier]:
    """The heads of a base, each with its form for the engine that serves the base."""
    base = open_base(root / given.base, name=name, lane=fleet.lane, serving=(fleet.serving, given.serving))
    folders = {head: root / folder for head, folder in given.named.items()}
    if isinstance(given.heads, str):
        found = sorted(path for path in root.glob(given.heads) if (path / "bundle").is_dir())
        if not found:
            raise RepositoryError(f"{root / given.heads}: no folder of a head; make one with slipway head")
        folders = {str(folder): folder for folder in found}
    for head, folder in tqdm(folders.items(), "opening", unit="head", leave=False, disable=None, delay=1):
        opened = open_head(folder, base)
        yield replace(opened, served_as="" if isinstance(given.heads, str) else head)


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


def open_head(run: Path, base: ServedBase) -> Classifier:
    """A head of `base`, in the form for the engine that serves the base, or the forms for its plans.

    Raises:
        RepositoryError: a form is missing; the message names the command that makes it.
        ManifestError: the bundle or a form is missing or damaged.
    """
    bundle = Bundle.open(run / "bundle")
    folders = [run / "engines" / engine.path.name for engine in base.engines]
    if missing := next((folder for folder in folders if not folder.is_dir()), None):
        again = command("slipway head", run / "bundle/spec.json", "--base", base.base.path.parent, "--out", run)
        raise RepositoryError(
            f"{missing}: {base.name} is served by this engine, and the head has no form for it; {again}"
        )
    first, *others = (Engine.open(folder, bundle=bundle) for folder in folders)
    return Classifier(bundle, first, tuple(others), settings=base.serving, base=base)
