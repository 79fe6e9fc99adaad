"""A planned repository, and how it replaces the one before: whole or not at all."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from slipway.contract import Lane, ManifestError, RepositoryError
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint import lint
from slipway.lint.models import Unchanged, remember
from slipway.repository.config import ModelConfig
from slipway.repository.step import Files
from slipway.system.files import Identity, clear_leftovers, complete_folder, identity, identity_of, sha256_file

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
    ensembles: Sequence[ModelConfig]
    """Configurations of the ensembles, which the lint need not read again."""
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
        for config in self.ensembles:
            remember(self.files[f"{config.name}/config.pbtxt"].read().decode(), config)
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
