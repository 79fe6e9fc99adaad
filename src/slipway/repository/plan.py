"""Plans the changes to a repository folder by folder, before anything is written, and writes them."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from slipway.contract import Lane, ManifestError, RepositoryError
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint import lint
from slipway.lint.models import Unchanged
from slipway.repository.contents import Contents
from slipway.repository.step import Files
from slipway.repository.taken_over import Present
from slipway.system.files import (
    Identity,
    clear_leftovers,
    complete_folder,
    entries_below,
    identity,
    identity_of,
    sha256_file,
)
from slipway.system.targets import check_folder

Change = Literal["added", "changed", "removed", "unchanged"]
MANY_FOLDERS = 256
"""Number of models from which the repository that is replaced is kept, to be made the next one (docs/adr/0072)."""
PROGRESS: dict[str, Any] = {"unit": "file", "leave": False, "disable": None, "delay": 1}


@dataclass(frozen=True)
class Folder:
    """One model of the repository."""

    name: str
    change: Change
    """Change to the folder. `changed` is an ensemble over other steps, or a damaged folder."""
    size: int
    """Size in bytes; of a removed folder, its former size."""


@dataclass(frozen=True)
class RepositoryPlan:
    """The difference between the present repository at `out` and the intended one."""

    out: Path
    before: str
    """The present repository, as `state_of` gives it."""
    lane: Lane
    folders: tuple[Folder, ...]
    files: Files
    same: Mapping[str, Identity]
    """Files that are already there, byte for byte."""
    moved: Mapping[str, Identity]
    """Files that are already there in the former step of a group of heads."""
    unchanged: Unchanged
    """Groups of heads that are already there, and were linted when they were written."""
    changes_nothing: bool

    def write(self) -> None:
        """Replace the old repository with the new one. If nothing changes, nothing is touched.

        Raises:
            SpecError: `out` is not a repository of ours, or another process is writing it.
            RepositoryError: another process has written `out` since it was compared, or `out` cannot be written, for
                example on a full disk, or the lint finds a fault.
        """
        try:
            if self.changes_nothing:
                clear_leftovers(self.out)
                self._require_as_compared()
                return
            many = len(self.folders) >= MANY_FOLDERS
            with complete_folder(self.out, kind="repository", keep_former=many) as staging:
                self._require_as_compared()
                folders = {folder for name in self.files for folder in _folders_above(name)}
                mode = _mode_of_new_folders()
                there = {*_kept(str(staging), "", folders=folders, same=self.same, mode=mode)}
                for folder in sorted(folders - there):
                    os.mkdir(f"{staging}/{folder}")
                for name, content in tqdm(self.files.items(), "writing", **PROGRESS):
                    path = f"{staging}/{name}"
                    if name not in there and not self._link(name, path):
                        content.write(Path(path))
                self._require_nothing_found(staging)
        except OSError as error:
            raise RepositoryError(f"{self.out}: cannot be written: {error}") from None

    def _require_as_compared(self) -> None:
        if state_of(self.out) != self.before:
            raise RepositoryError(f"{self.out}: assembled by another process meanwhile; assemble again")

    def _require_nothing_found(self, staging: Path) -> None:
        findings = lint(staging, unchanged=self.unchanged)
        if findings:
            lines = "".join(f"\n  {finding}" for finding in findings)
            raise RepositoryError(f"{self.out}: not written, since the lint found faults:{lines}")

    def _link(self, name: str, path: str) -> bool:
        """Whether `path` is now a hard link to the file that was found to be the same."""
        found = self.same.get(name) or self.moved.get(name)
        if found is None:
            return False
        source = self.files[name].source if name in self.moved else f"{self.out}/{name}"
        assert not isinstance(source, bytes)
        try:
            os.link(source, path, follow_symlinks=False)
        except OSError:  # another user's file, too many links, or a file system without links
            return False
        if identity(path) == found:
            return True
        os.unlink(path)
        return False


def _folders_above(name: str) -> list[str]:
    """The folders that a file is in, by paths relative to the same root."""
    *parts, _ = name.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _kept(path: str, below: str, *, folders: Set[str], same: Mapping[str, Identity], mode: int) -> Iterator[str]:
    """Remove from a former repository all but `folders` and hard links to files of the present one that stay the same;
    gives the names of both. The folders in it get `mode`, which new ones have: somebody may have changed it."""
    with os.scandir(path) as entries:
        inside = list(entries)
    for entry in inside:
        name = below + entry.name
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if status.st_mode & 0o777 != mode:
                os.chmod(entry.path, stat.S_IMODE(status.st_mode) & ~0o777 | mode)
            if name in folders:
                yield name
            yield from _kept(entry.path, f"{name}/", folders=folders, same=same, mode=mode)
            if name not in folders:
                os.rmdir(entry.path)
        elif same.get(name) == identity_of(status) and status.st_nlink > 1:  # some disks invent inodes
            yield name
        else:
            os.unlink(entry.path)


def _mode_of_new_folders() -> int:
    os.umask(umask := os.umask(0))
    return 0o777 & ~umask | stat.S_IRWXU


def state_of(repository: Path) -> str:
    """The sha256 of a repository's manifest, which tells one state of it from another; empty if it has none."""
    try:
        return sha256_file(repository / MANIFEST)
    except ManifestError:
        return ""


def plan(contents: Contents, out: Path, *, before: str | None = None, present: Present | None = None) -> RepositoryPlan:
    """Compare `contents` by hash with the repository at `out`; nothing is written.

    Args:
        before: the state of the repository that `contents` took heads over from; by default the present one.
        present: that repository, whose files were hashed a moment ago.

    Raises:
        SpecError: `out` is not a repository of ours.
    """
    check_folder(out, kind="repository")
    before = state_of(out) if before is None else before
    there = present.identities if present is not None else _identities(out)
    hashed = {**present.manifest.outputs, MANIFEST: before} if present is not None else {}
    same = _same(contents.files, out, there, hashed)
    moved = _moved(contents.files, same) if present is not None else {}
    folders = _folders(contents.files, there, same, out)
    return RepositoryPlan(
        out=out,
        before=before,
        lane=contents.lane,
        folders=folders,
        files=contents.files,
        same=same,
        moved=moved,
        unchanged=replace(
            contents.unchanged,
            known={name: (contents.files[name].sha256, found) for name, found in (same | moved).items()},
        ),
        changes_nothing=same.keys() == contents.files.keys() == there.keys()
        and {folder.change for folder in folders} == {"unchanged"},
    )


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
