"""The folder that a server runs on: what happens to the repository afterwards does not reach a running server."""

import compileall
import errno
import os
import py_compile
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from slipway.contract import ServingError
from slipway.serving.contents import Contents

_PLAIN = re.compile(r"[A-Za-z0-9_./+,@=-]+")
"""The server starts a step by a line of shell in which nothing is quoted."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


class Workspace:
    """Copies of models below `root`, added and taken away whole."""

    def __init__(self, root: Path, *, note: str = "") -> None:
        self.note = note
        """Why it lies elsewhere than it should; empty where it does not."""
        self.root, self.models, self._staging = root, root / "repository", root / "staging"
        self._versions = (root / f"ensembles{number}" for number in count())
        self.models.mkdir()
        self._staging.mkdir()

    def take(self, checked: Contents) -> Contents:
        """What is needed of `checked`, whatever becomes of the repository: its ensembles, and steps that are not here.

        Raises:
            ServingError: the disk is full, or another repository took its place meanwhile; of its steps none is left.
        """
        with _room(self.root):
            contents = checked.with_own_ensembles(next(self._versions))
        new = [step for step in contents.needed() if not (self.models / step).exists()]
        self.add(contents, new)
        try:
            contents.check_unchanged()
        except BaseException:
            self.remove(new)
            raise
        return contents

    def add(self, contents: Contents, names: Iterable[str]) -> None:
        """Put models there, each in the place of one of the same name, and with the time of now.

        Triton looks at the times of the files below a model: it loads an ensemble again only when it looks newer, and
        loads a step again whenever an ensemble of it is loaded and the step looks newer. So these are copies (a hard
        link gets a new time whenever another link to its file goes), and the `__pycache__` of a step, which its stub
        would write, is there before.
        """
        for name in names:
            new = self._staging / name
            with _room(self.root):
                shutil.copytree(contents.models[name].folder, new, copy_function=shutil.copyfile)
            compileall.compile_dir(new, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            os.utime(new)
            self.remove([name])
            new.rename(self.models / name)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.rmtree(self.models / name, ignore_errors=True)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raises ServingError where the disk of `folder` is full."""
    try:
        yield
    except OSError as error:  # copytree's own has one for each file in its text
        full = os.strerror(errno.ENOSPC)
        if full not in str(error):
            raise
        raise ServingError(f"{folder}: {full}; make room for the steps, or set TMPDIR to a folder with more") from None


@contextmanager
def private_workspace() -> Iterator[Workspace]:
    """In a temporary folder, which is removed at the end.

    Raises:
        ServingError: there is no such folder that the server could load steps from.
    """
    wanted = os.environ.get("TMPDIR") or tempfile.gettempdir()
    parent = next((folder for folder in (wanted, *_OTHERS) if not _problem(folder)), None)
    if parent is None:
        raise ServingError(f"TMPDIR={wanted} {_problem(wanted)}, nor can {', '.join(_OTHERS)} be used; set TMPDIR")
    note = "" if parent == wanted else f"TMPDIR={wanted} {_problem(wanted)}: {parent} is used"
    with tempfile.TemporaryDirectory(prefix="slipway-serving-", dir=parent, ignore_cleanup_errors=True) as root:
        yield Workspace(Path(root), note=note)


def _problem(folder: str) -> str:
    """Why the server could not load its steps from a folder below `folder`; empty where it could."""
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        return "is not a folder that can be written"
    if not _PLAIN.fullmatch(folder):
        return "has other characters than letters, digits and _./+,@=-, so that the server would load no step from it"
    return ""
