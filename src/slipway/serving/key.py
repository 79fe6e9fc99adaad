"""The key of the supervisor's POST /reload: from the environment, or in a file that only its owner reads."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.errors import ServingError
from slipway.system.home import user_folder

VARIABLE = "SLIPWAY_ADMIN_KEY"
HEADER = "slipway-admin"
"""Header of POST /reload that has the key."""


@contextmanager
def offered_key(port: int) -> Iterator[str]:
    """The key of a supervisor on `port`. If the environment has none, a new key is in its file during the block.

    Raises:
        ServingError: the file cannot be written.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        yield given
        return
    path, key = _path(port), secrets.token_urlsafe(24)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
    except OSError as error:
        raise ServingError(
            f"{path}: the key of POST /reload cannot be kept there: {error.strerror}; set XDG_STATE_HOME to a folder "
            f"that can be written, or {VARIABLE} to a key of your own"
        ) from None
    try:
        yield key
    finally:
        path.unlink(missing_ok=True)


def find_key(port: int) -> str:
    """The key of the supervisor that runs on `port`.

    Raises:
        ServingError: this user may read no key.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        return given
    try:
        return _path(port).read_text(encoding="utf-8")
    except OSError as error:
        raise ServingError(
            f"{_path(port)}: {error.strerror}; is your server running with --status-port {port}? Its key is in "
            f"this file, or in {VARIABLE} if it was started with that"
        ) from None


def _path(port: int) -> Path:
    return user_folder("XDG_STATE_HOME", ".local/state") / "slipway" / f"key-{port}"
