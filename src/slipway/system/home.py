"""A folder of the user for keys and caches, even in a container without a home."""

import getpass
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from slipway.errors import SpecError

_MATPLOTLIB = {"XDG_CONFIG_HOME": ".config", "XDG_CACHE_HOME": ".cache"}
"""Variables that name matplotlib's folders, and their defaults below the home."""


def user_folder(variable: str, below_home: str) -> Path:
    """The folder of `variable` (XDG_CACHE_HOME, …), or its default below the home; if that is impossible, a substitute.

    The substitute is the same for every process of this user with the same TMPDIR.

    Raises:
        SpecError: the substitute is impossible too.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable])
    usual = Path(os.path.expanduser("~")) / below_home
    return usual if _can_be_written(usual) else substitute_home() / below_home


def ensure_home() -> str:
    """Set HOME and USER if the user has none: libraries of every stage store files there.

    In a home that can only be read, matplotlib alone complains; MPLCONFIGDIR gives it a folder.

    Returns:
        A message for the user about the change; empty if there was none.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the user id has no entry in the password database
        os.environ["USER"] = str(os.getuid())
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and os.path.isdir(home) and (_can_be_written(home) or os.path.exists(home / ".cache")):
        with suppress(FileNotFoundError, SpecError):  # without a substitute, matplotlib says what it lacks
            _ensure_matplotlib_folder(home)
        return ""
    try:
        substitute = str(substitute_home())
    except FileNotFoundError:  # nothing can be written here; some stages only read
        return ""
    given, os.environ["HOME"] = os.environ.get("HOME"), substitute
    said = "no HOME" if given is None else f"HOME={given} is not a folder that can be written"
    return f"{said}: caches and keys go to {substitute}; set HOME to keep them elsewhere"


def _ensure_matplotlib_folder(home: Path) -> None:
    usual = [Path(os.environ.get(name) or home / below) / "matplotlib" for name, below in _MATPLOTLIB.items()]
    if "MPLCONFIGDIR" not in os.environ and not all(map(_can_be_written, usual)):
        os.environ["MPLCONFIGDIR"] = str(substitute_home() / ".config/matplotlib")


def substitute_home() -> Path:
    """The folder `slipway-<user id>` in the temporary folder, made if it is missing.

    Raises:
        SpecError: it cannot be made, or other users could write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SpecError(f"{folder}: {error.strerror}; set HOME to a folder that can be written") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise SpecError(f"{folder}: others can write to it; set HOME to a folder of your own, or TMPDIR")
    return folder


def _can_be_written(folder: Path) -> bool:
    """Whether `folder` can be written or made."""
    if not folder.is_absolute():
        return False
    there = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
