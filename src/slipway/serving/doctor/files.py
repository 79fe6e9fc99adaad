"""Is it a repository, and is every file of it the one that was assembled? All that are not are named."""

from collections.abc import Iterator
from pathlib import Path

from slipway.contract import Lane, Manifest, ManifestError, SpecError
from slipway.contract.files import sha256_file
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.serving.doctor.findings import Finding

AGAIN = "copy the repository again, or assemble it again (build/assemble.py)"


def read_manifest(repository: Path) -> Manifest | Finding:
    """The repository's manifest, or why there is none."""
    if not (repository / MANIFEST).is_file():
        return _absent(repository)
    try:
        manifest = Manifest.read(repository / MANIFEST)
    except SpecError as error:
        return _fail(MANIFEST, str(error), AGAIN)
    if manifest.kind != "repository":
        return _fail(MANIFEST, f"this folder is a {manifest.kind}, no repository", "assemble one (build/assemble.py)")
    try:
        return Manifest.open(repository, kind="repository")
    except ManifestError as error:  # of other files it names the first alone, and `damaged_files` all
        own = f"{repository / MANIFEST}: "
        return _fail(MANIFEST, str(error).removeprefix(own), AGAIN) if str(error).startswith(own) else manifest


def _absent(repository: Path) -> Finding:
    if not repository.is_dir():
        return _fail(MANIFEST, f"{repository} is no folder", "give the folder that build/assemble.py wrote")
    if any(repository.glob("*/config.pbtxt")):
        return _fail(MANIFEST, f"missing in {repository}, though models are there: half-copied", AGAIN)
    return _fail(MANIFEST, f"missing in {repository}: no model repository", "give the folder that assemble wrote")


def damaged_files(repository: Path, manifest: Manifest) -> dict[str, Finding]:
    """Relative path to finding, for every file that is missing, changed, added, or not a plain file."""
    found = {}
    for path, problem, remedy in sorted(_differences(repository, manifest.outputs)):
        found[path] = _fail(path, problem, remedy)
    return found


def _differences(repository: Path, outputs: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    present = set()
    for path in repository.rglob("*"):
        name = path.relative_to(repository).as_posix()
        if path.is_symlink():
            present.add(name)
            yield name, "a symbolic link, which could leave the repository", "copy the file itself there"
        elif path.is_file():
            present.add(name)
        elif not path.is_dir():
            yield name, "neither a file nor a folder", "remove it"
    for name in outputs.keys() - present:
        yield name, "missing, and the manifest names it", AGAIN
    for name in present - outputs.keys() - {MANIFEST}:
        if not (repository / name).is_symlink():
            yield name, "added since: not in the manifest", "remove it, or assemble again"
    for name in present & outputs.keys():
        if not (repository / name).is_symlink():
            yield from _changed(repository, name, outputs[name])


def _changed(repository: Path, name: str, expected: str) -> Iterator[tuple[str, str, str]]:
    try:
        found = sha256_file(repository / name)
    except ManifestError as error:
        yield name, str(error), AGAIN
        return
    if found != expected:
        yield name, f"changed since it was assembled (sha256 {found:.12}, recorded {expected:.12})", AGAIN


def read_lane(repository: Path) -> tuple[Lane | None, Finding]:
    """What the repository says that it serves."""
    try:
        lane = Lane.read(repository / LANE)
    except SpecError as error:
        return None, _fail(LANE, str(error).removeprefix(f"{repository / LANE}: "), AGAIN)
    named = ", ".join(f"{name} (bundle {bundle:.12})" for name, bundle in sorted(lane.classifiers.items()))
    if not named:
        return lane, _fail(LANE, "names no classifier", AGAIN)
    return lane, Finding("repository", LANE, "ok", f"{lane.lane} lane of {named}")


def _fail(path: str, reason: str, remedy: str) -> Finding:
    return Finding("repository", path, "fail", reason, remedy)
