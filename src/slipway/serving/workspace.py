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
from typing import TypeAlias

from slipway.contract import ServingError
from slipway.lint.models import CONFIG, ENSEMBLE, Model
from slipway.serving import load_many
from slipway.serving.contents import Contents

_PLAIN = re.compile(r"[A-Za-z0-9_./+,@=-]+")
"""Characters allowed in the path: the server starts a step by a shell line without quotes."""
VERSION, OTHER_VERSION = "1", "2"
Rename: TypeAlias = tuple[Path, Path]
"""A path before and after it is renamed."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


class Workspace:
    """Copies of models below `root`, each added and removed as a whole."""

    def __init__(self, root: Path, *, note: str = "") -> None:
        self.note = note
        """The reason why the folder is not in TMPDIR; empty if it is."""
        self.root, self.models = root, root / "repository"
        self._staging, self._former = root / "staging", root / "former"
        self._here: dict[str, Mapping[str, bytes]] = {}
        """The files of the ensembles that are here, but for the name of their version."""
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
        with self._cleared():
            renames, names = list[Rename](), list(names)
            for name in names:
                if name in contents.own and self._differs_in_config(contents.own[name], name):
                    renames += self._new_config(contents.own[name][CONFIG], name, other_version=other_version)
                else:
                    self._copy(contents, name, other_version=other_version)
                    renames += self._new_folder(name)
            _rename_all(renames)
            self._here |= {name: contents.own[name] for name in names if name in contents.own}
            for name in names:
                os.utime(self.models / name)

    def _differs_in_config(self, files: Mapping[str, bytes], name: str) -> bool:
        """Whether an ensemble that is here has these files, but for its configuration and the name of its version."""
        here = self._here.get(name, {})
        ours = all(path.startswith(f"{VERSION}/") for path in files if "/" in path)
        return ours and CONFIG in here and {**here, CONFIG: b""} == {**files, CONFIG: b""}

    def _new_config(self, text: bytes, name: str, *, other_version: bool) -> "list[Rename]":
        """The renames that give an ensemble a new configuration: its folders stay, since to make and to remove
        those of hundreds of heads takes a second."""
        model, version = self.models / name, self._version(name)
        with _room(self.root):
            (self._staging / name).write_bytes(text)
        wanted = OTHER_VERSION if other_version and version == VERSION else VERSION
        moves = [(model / CONFIG, self._former / name), (self._staging / name, model / CONFIG)]
        return [*moves, (model / version, model / wanted)] if wanted != version else moves

    def _version(self, name: str) -> str:
        """The version of an ensemble that is here."""
        return OTHER_VERSION if (self.models / name / OTHER_VERSION).is_dir() else VERSION

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

    def _new_folder(self, name: str) -> "list[Rename]":
        """The renames that replace a model by its copy."""
        here = [(self.models / name, self._former / name)] if (self.models / name).exists() else []
        return [*here, (self._staging / name, self.models / name)]

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

    def add_together(self, ensembles: Sequence[Model]) -> None:
        """Write the models of `load_many.py`; raises ServingError if the disk is full."""
        self.remove(load_many.NAMES)
        try:
            with _room(self.root):
                load_many.write_models(self.models, ensembles)
        except BaseException:
            self.remove(load_many.NAMES)
            raise

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            shutil.rmtree(self.models / name, ignore_errors=True)
            self._here.pop(name, None)


def _rename_all(renames: Sequence[Rename]) -> None:
    """Do these renames, which need no room, in their order; if one fails, those before are undone."""
    done = list[Rename]()
    try:
        for before, after in renames:
            before.rename(after)
            done.append((before, after))
    except OSError:
        for before, after in reversed(done):
            after.rename(before)
        raise


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
