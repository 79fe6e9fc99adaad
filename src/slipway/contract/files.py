"""Hashes, and folders that appear whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.contract.errors import ManifestError, SpecError


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Raises ManifestError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted by relative path; a symbolic link is an error.

    Raises:
        ManifestError: a link, which could leave the tree, or anything else that is no file or folder.
    """
    found = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        if path.is_symlink():
            raise ManifestError(f"{path}: a symbolic link; copy the file itself into the folder")
        if path.is_file():
            found.append(path)
        elif not path.is_dir():
            raise ManifestError(f"{path}: neither a file nor a folder; remove it")
    return found


@contextmanager
def complete_folder(target: Path, *, marker: str = "manifest.json") -> Iterator[Path]:
    """Yield an empty temporary sibling of `target`, renamed to `target` on success and removed on any failure.

    A folder that stood at `target` is replaced only once the new one is complete, and only if it is empty or holds
    `marker`, so that nobody's own files are ever removed.

    Raises:
        SpecError: something else stands at `target`.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise SpecError(f"{target}: a file or link, where a folder is to be written; remove it or give another path")
    if target.is_dir() and not (target / marker).is_file() and any(target.iterdir()):
        raise SpecError(f"{target}: not empty, and not written by this stage (no {marker}); give another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o755)
        yield staging
        replaced = staging.with_name(staging.name + ".old")
        if target.exists():
            os.rename(target, replaced)
        try:
            os.rename(staging, target)
        except BaseException:
            if replaced.exists():
                os.rename(replaced, target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
