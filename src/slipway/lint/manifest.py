"""Checks that every file is the assembled one, and the files of the root: `manifest.json`, `lane.json`, links."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from slipway.contract import Lane, Manifest, ManifestError, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import Known
from slipway.lint.finding import Finding, Findings
from slipway.system.files import sha256_file

AGAIN = "copy the repository again, or assemble it again (slipway assemble)"


def read_lane(repository: Path) -> tuple[Lane | None, list[Finding]]:
    """The lane of the repository; None without a finding if Slipway did not assemble it."""
    path = repository / LANE
    if not path.is_file():
        missing = (repository / MANIFEST).is_file()
        return None, [_of(LANE, "lane-unreadable", "missing, although there is a manifest", AGAIN)] if missing else []
    try:
        return Lane.read(path), []
    except SpecError as error:
        return None, [_of(LANE, "lane-unreadable", str(error).removeprefix(f"{path}: "), AGAIN)]


def read_hashes(
    repository: Path, *, known: Known, written: Manifest | None = None
) -> tuple[Mapping[str, str], list[Finding]]:
    """The hashes of the manifest, and the findings on files that differ. A manifest that the caller has just `written`
    is not read again, unless a file differs."""
    if written is not None:
        with suppress(ManifestError, OSError):
            written.verify(repository, known=known)
            return written.outputs, []
    return _read_hashes(repository, known=known)


def _read_hashes(repository: Path, *, known: Known) -> tuple[Mapping[str, str], list[Finding]]:
    path = repository / MANIFEST
    if not path.is_file():
        reason = "missing, although there is a lane.json: half-copied, or written by hand"
        there = (repository / LANE).is_file()
        return {}, [_of(MANIFEST, "manifest-missing", reason, AGAIN)] if there else list(_links(repository))
    try:
        manifest = Manifest.read(path)
        if manifest.kind != "repository":
            reason = f"this folder is of kind {manifest.kind}, not a model repository"
            return {}, [_of(MANIFEST, "repository-empty", reason, "assemble a repository from it (slipway assemble)")]
        return Manifest.open(repository, kind="repository", known=known).outputs, []
    except SpecError as error:
        return {}, [_of(MANIFEST, "manifest-broken", str(error).removeprefix(f"{path}: "), AGAIN)]
    except (ManifestError, OSError) as error:  # it names the first file that is wrong, or itself
        if str(error).startswith(f"{path}: "):
            return {}, [_of(MANIFEST, "manifest-broken", str(error).removeprefix(f"{path}: "), AGAIN)]
    differences = _differences(repository, manifest.outputs)
    return manifest.outputs, sorted(differences, key=lambda finding: finding.file)


def _differences(repository: Path, recorded: Mapping[str, str]) -> Findings:
    present = {}
    for name, path in _everything(repository):
        present[name] = path
        if path.is_symlink():
            reason = "a link, which could leave the repository, or change without it"
            yield _of(name, "symbolic-link", reason, "replace it by the file itself")
        elif not path.is_file():
            yield _of(name, "file-added", "neither a file nor a folder", "remove it")
        elif name not in recorded and name != MANIFEST:
            yield _of(name, "file-added", "not in the manifest", "remove it, or assemble again")
        elif name in recorded:
            yield from _changed(name, path, recorded[name])
    for name in recorded.keys() - present.keys():
        yield _of(name, "file-missing", "missing, although the manifest names it", AGAIN)


def _changed(name: str, path: Path, recorded: str) -> Findings:
    try:
        found = sha256_file(path)
    except ManifestError as error:
        yield _of(name, "unreadable", str(error).removeprefix(f"{path}: "), AGAIN)
        return
    if found != recorded:
        reason = f"changed since it was assembled (sha256 {found:.12}, recorded {recorded:.12})"
        yield _of(name, "file-changed", reason, AGAIN)


def _links(repository: Path) -> Findings:
    """Findings on links that lead out of a repository without a manifest, or nowhere."""
    root = repository.resolve()
    for name, path in _everything(repository):
        if not path.is_symlink():
            continue
        try:
            inside = path.resolve(strict=True).is_relative_to(root)
        except (OSError, RuntimeError):  # nowhere, or in a circle
            yield _of(name, "symbolic-link", "a link that leads nowhere", "remove it, or replace it by the file itself")
            continue
        if not inside:
            reason = f"a link out of the repository, to {path.readlink()}"
            yield _of(name, "symbolic-link", reason, "replace it by its target")


def _everything(repository: Path) -> Iterator[tuple[str, Path]]:
    """All files and links below the repository, sorted; links are not followed."""
    for folder, folders, files in os.walk(repository):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*files, *links]):
            path = Path(folder, name)
            yield path.relative_to(repository).as_posix(), path


def _of(file: str, rule: str, reason: str, remedy: str) -> Finding:
    model, inside, _ = file.partition("/")
    return Finding(model if inside else "", file, "", reason, remedy, rule)
