"""Opens every bundle, base and engine that a fleet file names."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, Engine, Fleet, RepositoryError
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.choice import FILE_NAME as CHOICE
from slipway.contract.choice import Choice
from slipway.contract.fleet import FleetBase, Version, overridden
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Serving
from slipway.repository.classifier import Classifier
from slipway.repository.heads import ServedBase
from slipway.repository.pick import open_engines, pick_engines
from slipway.system.files import sha256_file
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
    base = open_base(root / given.base, name=name)
    serving = overridden(overridden(base.serving, by=fleet.serving), by=given.serving)
    base = replace(base, serving=serving)
    folders = {head: root / folder for head, folder in given.named.items()}
    if isinstance(given.heads, str):
        found = sorted(path for path in root.glob(given.heads) if (path / "bundle").is_dir())
        if not found:
            raise RepositoryError(f"{root / given.heads}: no folder of a head; make one with slipway head")
        folders = {str(folder): folder for folder in found}
    for head, folder in tqdm(folders.items(), "opening", unit="head", leave=False, disable=None, delay=1):
        opened = open_head(folder, base)
        yield replace(opened, served_as="" if isinstance(given.heads, str) else head)


def open_base(run: Path, *, name: str = "") -> ServedBase:
    """The base of a run, with the engine that its `choice.json` names.

    Raises:
        RepositoryError: its engines were not compared; names the command that does.
        ManifestError: the base or the engine is missing or damaged.
    """
    base = Base.open(run / "base")
    path = run / "engines" / CHOICE
    if not path.is_file():
        raise RepositoryError(
            f"{path}: missing, so it is not known which engine is the fastest; run slipway base again"
        )
    choice = Choice.read(path)
    engine = BaseEngine.open(run / "engines" / choice.chosen, base=base)
    measured = {candidate.engine: candidate.manifest_sha256 for candidate in choice.candidates}.get(choice.chosen)
    if choice.bundle != base.id or measured != sha256_file(engine.path / MANIFEST) or not engine.may_be_served:
        raise RepositoryError(f"{path}: does not name an engine of this base that passed; run slipway base again")
    return ServedBase(name or base.spec.name, base, engine, choice, base.spec.serving)


def open_head(run: Path, base: ServedBase) -> Classifier:
    """A head of `base`, in the form for the engine that serves the base.

    Raises:
        RepositoryError: the form is missing; the message names the command that makes it.
        ManifestError: the bundle or the form is missing or damaged.
    """
    bundle = Bundle.open(run / "bundle")
    folder = run / "engines" / base.engine.path.name
    if not folder.is_dir():
        again = command("slipway head", run / "bundle/spec.json", "--base", base.base.path.parent, "--out", run)
        raise RepositoryError(
            f"{folder}: {base.name} is served by this engine, and the head has no form for it; {again}"
        )
    return Classifier(bundle, Engine.open(folder, bundle=bundle), settings=base.serving, base=base)
