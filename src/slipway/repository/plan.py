"""Plans the changes to a repository: describes what it is to hold, and compares that with the present one. `assemble`
also writes them, whole or not at all."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from slipway.contract import Choice, Lane, Manifest, ManifestError, RepositoryError
from slipway.contract.choice import choice_name
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.lane import LaneBase, LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.repository.checks import check, check_names
from slipway.repository.classifier import Classifier
from slipway.repository.contents import Multi, PlannedContents, contents
from slipway.repository.groups import BaseHeads
from slipway.repository.heads import engine_part
from slipway.repository.lanes import LANE_RULES
from slipway.repository.step import Content, Files
from slipway.repository.taken_over import CODE, Present, code_sha256
from slipway.repository.write import PROGRESS, Change, Folder, RepositoryPlan, state_of
from slipway.system.files import Identity, entries_below, identity_of, sha256_bytes, sha256_file
from slipway.system.targets import check_folder

NONE: Multi = MappingProxyType({})


def plan_repository(
    classifiers: Sequence[Classifier],
    out: Path,
    *,
    bases: Sequence[BaseHeads] = (),
    lane: LaneName = "cpu",
    multi: Multi = NONE,
    cores: int | None = None,
    inputs: Iterable[Path] = (),
) -> RepositoryPlan:
    """The plan of what `assemble` writes; `.write()` writes it. `multi` names ensembles for several classifiers.

    Groups of heads of which nothing changed are taken over from `out`, and their heads are not opened.

    Args:
        cores: of the machine that will serve; by default those that this process may use.
        inputs: other files that were read, besides bundles and engines, and that `out` must not contain.

    Raises:
        RepositoryError: no classifier is given, or two have the same name; an engine is of another lane, failed its
            gate, or has other labels or another decoder; class ids changed; the classifiers of a multi ensemble cannot
            share a decode; or the lane's own `check` fails.
        ManifestError: a head of `bases` is missing or damaged.
        SpecError: `out` is not a repository of ours, or contains its own inputs.
    """
    versions = [version for classifier in classifiers for version in classifier.versions]
    check_folder(out, kind="repository")  # soon, and once more when it is known what is read
    check_names([*(classifier.name for classifier in classifiers), *(name for own in bases for name in own.runs)])
    rules = LANE_RULES[lane]
    check(classifiers, lane=lane, decoder=rules.DECODER)
    rules.check(versions, [own.base for own in bases])
    try:
        before = state_of(out)
        present = Present.open(out) if bases else None
        intended = contents(classifiers, bases, lane=lane, multi=multi, cores=cores, present=present)
        return plan(intended, out, before=before, present=present, inputs=inputs)
    except OSError as error:
        raise RepositoryError(f"{out}: {error.filename} cannot be read: {error.strerror}; assemble again") from None


def assemble(
    classifiers: Sequence[Classifier],
    out: Path,
    *,
    bases: Sequence[BaseHeads] = (),
    lane: LaneName = "cpu",
    multi: Multi = NONE,
) -> Lane:
    """Write the lane of `classifiers` to `out`. Equal input gives equal bytes. Raises what `plan_repository` raises."""
    planned = plan_repository(classifiers, out, bases=bases, lane=lane, multi=multi)
    planned.write()
    return planned.lane


def plan(
    intended: PlannedContents,
    out: Path,
    *,
    before: str | None = None,
    present: Present | None = None,
    inputs: Iterable[Path] = (),
) -> RepositoryPlan:
    """Describe `intended`, and compare them by hash with the repository at `out`; nothing is written.

    Args:
        before: the state of the repository that `intended` took heads over from; by default the present one.
        present: that repository, whose files were hashed a moment ago.
        inputs: other files that were read, besides bundles and engines, and that `out` must not contain.

    Raises:
        SpecError: `out` is not a repository of ours, or contains its own inputs.
    """
    lane = _describe(intended)
    files = {**intended.files, LANE: Content.of(lane.to_json().encode())}
    manifest = _manifest(intended, files)
    files[MANIFEST] = Content.of(manifest.to_json().encode())
    before = state_of(out) if before is None else before
    there = present.identities if present is not None else _identities(out)
    hashed = {**present.manifest.outputs, MANIFEST: before} if present is not None else {}
    same = _same(files, out, there, hashed)
    moved = _moved(files, same) if present is not None else {}
    folders = _folders(files, there, same, out)
    run = {config.name for chain in intended.chains.values() for config in chain}
    read = [*_read(intended), *inputs]
    check_folder(out, kind="repository", inputs=read)
    return RepositoryPlan(
        out=out,
        before=before,
        lane=lane,
        folders=folders,
        files=files,
        ensembles=intended.ensembles,
        same=same,
        moved=moved,
        unchanged=replace(
            intended.heads.unchanged,
            steps=intended.heads.unchanged.steps - run,
            manifest=manifest,
            known={name: (files[name].sha256, found) for name, found in (same | moved).items()},
        ),
        changes_nothing=same.keys() == files.keys() == there.keys()
        and {folder.change for folder in folders} == {"unchanged"},
    )


def _read(intended: PlannedContents) -> Iterator[Path]:
    """The folders of everything that the repository is made from."""
    for served in intended.networks.served:
        yield served.owner.path
        yield from (engine.path for engine in served.engines)
    for own in intended.bases:
        yield from own.runs.values()


def _identities(out: Path) -> dict[str, Identity]:
    """Return an identity of everything below `out` except folders, links included."""
    if not out.is_dir():
        return {}
    return {name: identity_of(entry.stat(follow_symlinks=False)) for name, entry in entries_below(out).items()}


def _same(files: Files, out: Path, there: Mapping[str, Identity], hashed: Mapping[str, str]) -> dict[str, Identity]:
    """The files that are `there` already; those that are not `hashed` yet are hashed now."""
    same = {}
    for name, content in tqdm(files.items(), "comparing", **PROGRESS):
        found = there.get(name)
        if found is None or found.size != content.size:
            continue
        if (hashed.get(name) or _sha256(f"{out}/{name}")) == content.sha256:
            same[name] = found
    return same


def _moved(files: Files, same: Mapping[str, Identity]) -> dict[str, Identity]:
    """Files of heads that are taken over into another step."""
    return {name: content.found for name, content in files.items() if name not in same and content.found is not None}


def _folders(
    files: Files, there: Mapping[str, Identity], same: Mapping[str, Identity], out: Path
) -> tuple[Folder, ...]:
    exist = {path.name for path in out.iterdir() if path.is_dir()} if out.is_dir() else set()
    new, old = _by_folder(files), _by_folder(there)
    folders = []
    for name in sorted(new.keys() | exist):
        wanted, found = new.get(name, set()), old.get(name, set())
        change: Change
        if not wanted:
            change = "removed"
        elif name not in exist:
            change = "added"
        else:
            change = "unchanged" if wanted == found and wanted <= same.keys() else "changed"
        size = sum(files[path].size for path in wanted) or sum(there[path].size for path in found)
        folders.append(Folder(name, change, size))
    return tuple(folders)


def _by_folder(paths: Iterable[str]) -> dict[str, set[str]]:
    """Paths in each folder, which is a model."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        if "/" in path:
            folders.setdefault(path.partition("/")[0], set()).add(path)
    return folders


def _sha256(path: str) -> str | None:
    """The file's sha256; None if it is a link, or cannot be read, which counts as damaged."""
    try:
        return sha256_file(path) if os.path.isfile(path) and not os.path.islink(path) else None
    except ManifestError:
        return None


def _describe(intended: PlannedContents) -> Lane:
    """`lane.json`."""
    chains, heads = intended.chains.values(), intended.heads
    steps = [*{config.name: config for chain in chains for config in chain}.values(), *heads.base_steps]
    classifiers = {one.name: one for one in (*intended.networks.classifiers, *heads.opened)}
    kept = {name: tuple(dict.fromkeys(old.bundle.id for old in c.kept)) for name, c in classifiers.items() if c.kept}
    lane = Lane(
        lane=intended.lane,
        classifiers={**{name: c.bundle.id for name, c in classifiers.items()}, **heads.bundles},
        kept=kept,
        multi={name: tuple(members) for name, members in intended.multi.items()},
        cores=intended.cores,
        bases={own.base.name: LaneBase(id=own.base.base.id, heads=tuple(own.runs)) for own in intended.bases},
        shm_default_bytes=intended.shm_default_bytes,
    )
    return LANE_RULES[intended.lane].describe(lane, intended.networks, steps=steps, stand_ins=heads.stand_ins)


def _manifest(intended: PlannedContents, files: Files) -> Manifest:
    """The manifest. Versions, times and commits are in those of bundles and engines, which it names by hash."""
    whole, heads = intended.networks.classifiers, intended.heads
    inputs = {
        name: sha256
        for classifier in whole
        for number, version in enumerate(classifier.versions)
        for name, sha256 in _inputs(version, f"{classifier.name}/kept{number}" if number else classifier.name)
    }
    manifest = Manifest(
        kind="repository",
        name=intended.lane,
        inputs={**inputs, **heads.inputs, **({CODE: code_sha256()} if heads.inputs else {})},
        outputs={path: content.sha256 for path, content in files.items()},
        measured={
            c.name: {_part(choice): choice.model_dump(mode="json") for choice in c.choices} for c in whole if c.choices
        },
    )
    own_sha256 = sha256_bytes(manifest.to_json().encode())
    return manifest.model_copy(update={"own_sha256": own_sha256})


def _inputs(version: Classifier, prefix: str) -> list[tuple[str, str]]:
    """Hashes of the manifests that a version was made from, and of the choice among its engines."""
    parts = {"bundle": version.bundle.path}
    for engine in version.engines:
        parts[engine_part(engine)] = engine.path
    hashed = [(f"{prefix}/{part}", sha256_file(path / MANIFEST)) for part, path in parts.items()]
    choices = [(f"{prefix}/{_part(choice)}", sha256_bytes(choice.to_json().encode())) for choice in version.choices]
    return [*hashed, *choices]


def _part(choice: Choice) -> str:
    """`choice`, or `choice_sm90` between plans for compute capability 9.0."""
    name = choice_name(None if choice.card is None else choice.card.compute_capability)
    return name.removesuffix(".json").replace("-", "_")
