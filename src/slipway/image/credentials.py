"""User and password of a registry, as `docker login`, `podman login` and `skopeo login` keep them."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from slipway.contract import SpecError
from slipway.contract.base import Contract
from slipway.image.documents import Document
from slipway.system.yaml_json import read_plain

HELPER_TIMEOUT_S = 30


class Credentials(NamedTuple):
    user: str
    password: str
    origin: str
    """Where they come from."""


class _Login(Document):
    auth: str = ""
    """`user:password` in Base64."""


class _Logins(Document):
    """The file that these tools write."""

    auths: dict[str, _Login] = {}  # noqa: RUF012  pydantic copies it
    creds_store: str | None = None
    cred_helpers: dict[str, str] = {}  # noqa: RUF012


class _Helped(Contract):
    """The answer of a credential helper."""

    ServerURL: str = ""
    Username: str
    Secret: str


def find_credentials(host: str) -> Credentials | None:
    """The credentials of a registry; None if nobody logged in.

    Raises:
        SpecError: the file or the helper that keeps them cannot be used.
    """
    for path in _files():
        if path.is_file():
            logins = _Logins.parse(read_plain(path), source=str(path))
            helper = logins.cred_helpers.get(host) or logins.creds_store
            if helper is not None and (found := _ask(helper, host)) is not None:
                return found
            if (login := logins.auths.get(host)) is not None and login.auth:
                return _decoded(login.auth, host=host, path=path)
    return None


def _files() -> list[Path]:
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    given = os.environ.get("REGISTRY_AUTH_FILE")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    podman = [Path(runtime, "containers/auth.json")] if runtime else []
    return [Path(given)] if given else [*podman, docker]


def _decoded(auth: str, *, host: str, path: Path) -> Credentials:
    try:
        user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise SpecError(f"{path}: the login of {host} is not Base64 of user:password; log in again") from None
    return Credentials(user, password, str(path))


def _ask(helper: str, host: str) -> Credentials | None:
    """What a credential helper of docker knows; None if it knows nothing of the host."""
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"], input=host, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            return None
        answer = _Helped.parse(json.loads(done.stdout), source=command)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise SpecError(f"{command}: cannot be asked for the login of {host}: {error}; log in again") from None
    return Credentials(answer.Username, answer.Secret, command)
