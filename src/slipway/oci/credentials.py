"""User and password of a registry, as `docker login`, `podman login` and `skopeo login` keep them."""

import base64
import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from slipway.contract import SpecError
from slipway.oci.documents import OciDocument
from slipway.system.yaml_json import parse_json

T = TypeVar("T", bound=BaseModel)
HELPER_TIMEOUT_S = 30


class Credentials(NamedTuple):
    user: str
    password: str
    origin: str
    """Source of the credentials, for messages."""


class _Login(OciDocument):
    auth: str = ""
    """`user:password` in Base64."""


class _Logins(OciDocument):
    """The file that these tools write."""

    auths: dict[str, _Login] = {}  # noqa: RUF012  pydantic copies it
    creds_store: str | None = None
    cred_helpers: dict[str, str] = {}  # noqa: RUF012


class _Helped(BaseModel):
    """The answer of a credential helper, as far as we read it."""

    Username: str
    Secret: str


def find_credentials(host: str) -> Credentials | None:
    """The credentials of a registry; None without a login.

    Raises:
        SpecError: the file or the helper that keeps them cannot be used.
    """
    for path in _files():
        if path.is_file():
            logins = _parsed(_Logins, _read(path), source=str(path))
            helper = logins.cred_helpers.get(host) or logins.creds_store
            if helper is not None and (found := _ask(helper, host)) is not None:
                return found
            if (login := logins.auths.get(host)) is not None and login.auth:
                return _decoded(login.auth, host=host, path=path)
    return None


def _read(path: Path) -> Any:
    """The content of a file of logins, which is JSON under any name."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError):
        raise SpecError(f"{path}: cannot be read as text; log in again") from None
    except SpecError as error:
        raise SpecError(f"{error}; log in again") from None


def _parsed(kind: type[T], data: object, *, source: str) -> T:
    """Raises SpecError, which names only the field, since its value may be a secret."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        fields = sorted({".".join(map(str, issue["loc"])) or "the whole" for issue in error.errors()})
        raise SpecError(f"{source}: {', '.join(fields)}: not as a login writes it; log in again") from None


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
    """Ask a credential helper of docker for a host's credentials; None if it has none."""
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [command, "get"], input=host, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            return None
        answer = _parsed(_Helped, json.loads(done.stdout), source=command)
    except OSError as error:
        said = "is not on PATH" if error.errno == errno.ENOENT else error.strerror
        raise SpecError(
            f"{command}: {said}, and is named for the login of {host}; install it, or log in without it"
        ) from None
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise SpecError(f"{command}: cannot be asked for the login of {host}: {error}; log in again") from None
    return Credentials(answer.Username, answer.Secret, command)
