"""The folder that a server runs on: what happens to the repository afterwards does not reach a running server."""

import compileall
import os
import py_compile
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from slipway.serving.contents import Contents


class Workspace:
    """Copies of models below `root`, added and taken away whole."""

    def __init__(self, root: Path) -> None:
        self.root, self.models, self._staging = root, root / "repository", root / "staging"
        self._versions = (root / f"ensembles{number}" for number in count())
        self.models.mkdir()
        self._staging.mkdir()

    def take(self, checked: Contents) -> Contents:
        """What is needed of `checked`, whatever becomes of the repository: its ensembles, and steps that are not here.

        Raises:
            ServingError: another repository took its place meanwhile; of its steps none is left here.
        """
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
            shutil.copytree(contents.models[name].folder, new, copy_function=shutil.copyfile)
            compileall.compile_dir(new, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            os.utime(new)
            self.remove([name])
            new.rename(self.models / name)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.rmtree(self.models / name, ignore_errors=True)


@contextmanager
def private_workspace() -> Iterator[Workspace]:
    """In a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="slipway-serving-", ignore_cleanup_errors=True) as root:
        yield Workspace(Path(root))
