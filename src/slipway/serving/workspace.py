"""The private folder that a server runs on, so that changes of the repository do not reach a running server."""

import compileall
import errno
import os
import py_compile
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from slipway.contract import ServingError
from slipway.lint.models import ENSEMBLE, Model
from slipway.serving import together
from slipway.serving.contents import Contents

_PLAIN = re.compile(r"[A-Za-z0-9_./+,@=-]+")
"""Characters allowed in the path: the server starts a step by a shell line without quotes."""
VERSION, OTHER_VERSION = "1", "2"
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


class Workspace:
    """Copies of models below `root`, each added and removed as a whole."""

    def __init__(self, root: Path, *, note: str = "") -> None:
        self.note = note
        """The reason why the folder is not in TMPDIR; empty if it is."""
        self.root, self.models = root, root / "repository"
        self._staging, self._former = root / "staging", root / "former"
        self.models.mkdir()

    def take(self, checked: Contents, *, like: Contents | None = None) -> Contents:
        """Read the ensembles of `checked`, and copy the steps that are missing here; the repository may change then.
        Ensembles that are the same in `like`, which was taken before, are not read again.

        Raises:
            ServingError: the disk is full, or the repository was replaced meanwhile; no new step is left here.
        """
        contents = checked.with_own_ensembles(like=like)
        new = [step for step in contents.needed() if not (self.models / step).exists()]
        try:
            self.add(contents, new)
            contents.check_unchanged()
        except BaseException:
            self.remove(new)
            raise
        return contents

    def add(self, contents: Contents, names: Iterable[str], *, other_version: bool = False) -> None:
        """Copy models into the folder, replacing those of the same name, with the present time: all of them or none.
        With `other_version`, what is here as version 1 becomes version 2.

        Triton looks at the times of the files below a model. It loads an ensemble again only if that looks newer, and
        a step whenever one of its ensembles is loaded and the step looks newer. So the files are copies, since a hard
        link gets a new time when another link to its file is removed; and `__pycache__` is written before the stub
        would.
        """
        names = list(names)
        with self._cleared():
            for name in names:
                self._copy(contents, name, other_version=other_version)
            self._exchange(names)

    def _copy(self, contents: Contents, name: str, *, other_version: bool) -> None:
        new = self._staging / name
        with _room(self.root):
            if name in contents.own:
                _write(new, contents.own[name])
            else:
                shutil.copytree(contents.models[name].folder, new, copy_function=shutil.copyfile)
        if contents.models[name].backend != ENSEMBLE:
            compileall.compile_dir(new, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        if other_version and (self.models / name / VERSION).is_dir():
            (new / VERSION).rename(new / OTHER_VERSION)
        os.utime(new)

    def _exchange(self, names: Sequence[str]) -> None:
        """Replace models by the copies, by renames alone, which need no room; if one fails, all are put back."""
        replaced = []
        try:
            for name in names:
                replaced.append(name)
                if (self.models / name).exists():
                    (self.models / name).rename(self._former / name)
                (self._staging / name).rename(self.models / name)
        except OSError:
            for name in replaced:
                if (self._former / name).exists() or not (self._staging / name).exists():
                    self.remove([name])
                if (self._former / name).exists():
                    (self._former / name).rename(self.models / name)
            raise

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Have the folders of `add` empty for the block, and remove what is left in them, as of a copy that failed."""
        folders = (self._staging, self._former)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def together(self, ensembles: Sequence[Model]) -> Iterator[None]:
        """Have the models of `together.py` here for the duration of the block."""
        self.remove(together.NAMES)
        with _room(self.root):
            together.write_models(self.models, ensembles)
        try:
            yield
        finally:
            self.remove(together.NAMES)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.rmtree(self.models / name, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raises ServingError if the disk of `folder` is full."""
    try:
        yield
    except OSError as error:
        full = os.strerror(errno.ENOSPC)
        if full not in str(error):
            raise
        raise ServingError(
            f"{folder}: {full}; free some space for the steps, or set TMPDIR to a folder with more"
        ) from None


@contextmanager
def private_workspace() -> Iterator[Workspace]:
    """A workspace in a temporary folder, which is removed at the end.

    Raises:
        ServingError: there is no temporary folder from which the server could load steps.
    """
    wanted = os.environ.get("TMPDIR") or tempfile.gettempdir()
    parent = next((folder for folder in (wanted, *_OTHERS) if not _problem(folder)), None)
    if parent is None:
        raise ServingError(f"TMPDIR={wanted} {_problem(wanted)}, nor can {', '.join(_OTHERS)} be used; set TMPDIR")
    note = "" if parent == wanted else f"TMPDIR={wanted} {_problem(wanted)}: using {parent}"
    with tempfile.TemporaryDirectory(prefix="slipway-serving-", dir=parent, ignore_cleanup_errors=True) as root:
        yield Workspace(Path(root), note=note)


def _problem(folder: str) -> str:
    """The reason why the server could not load steps from a folder below `folder`; empty if it could."""
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        return "is not a writable folder"
    if not _PLAIN.fullmatch(folder):
        return "has characters other than letters, digits and _./+,@=-, so the server could not load steps from it"
    return ""
