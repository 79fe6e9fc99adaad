"""Options of a client: the address of the server, and how to ask it."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from slipway.contract import SpecError
from slipway.contract.spec import check_name
from slipway.system.channel import is_loopback

MIN_DEADLINE_S = 0.010
"""tritonserver 2.51 can be ended by deadlines of 1 to 4 ms (triton-inference-server/server#7368)."""
KEY_HEADER = "slipway-key"
"""Header (HTTP) or metadata (gRPC) of the gateway's key."""
_LONGEST_S = 86_400.0
_HOST = r"\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+"


@dataclass(frozen=True)
class Options:
    """Settings of a client. Every field has a default.

    Raises:
        SpecError: a value is not allowed; the message names the field, the given value and the allowed ones.
    """

    deadline_s: float = 10.0
    """Seconds for one request, including its retries and the pauses between them. They count from the call of
    `classify`, and from the sending of each batch of `classify_many`."""
    concurrency: int = 4
    """Number of requests under way at once."""
    batch_size: int | None = None
    """Images in one request, capped at the model's `max_batch_size`. None sends as many as the model takes."""
    reconnect_s: float = 0.0
    """Seconds for which a request that lost its server is repeated, counted from the first loss. 0 never repeats."""
    key: str | None = field(default=None, repr=False)
    """Key of a gateway (docs/gateway.md), sent with every request. Other machines get it over TLS only."""
    shrink_px: int | None = None
    """A JPEG is sent at a half, a quarter or an eighth of its size: the smallest whose shorter side has at least so
    many pixels. Give twice the size to which the classifier resizes (docs/clients.md). None sends files as they are."""
    certificate: str | Path | None = None
    """PEM file of the certificates to trust with `grpcs://` and `https://`. None trusts the usual authorities."""

    def __post_init__(self) -> None:
        _check("deadline_s", self.deadline_s, MIN_DEADLINE_S, _LONGEST_S)
        _check("concurrency", self.concurrency, 1, 256)
        if self.batch_size is not None:
            _check("batch_size", self.batch_size, 1, 4096)
        if self.shrink_px is not None:
            _check("shrink_px", self.shrink_px, 16, 8192)
        _check("reconnect_s", self.reconnect_s, 0.0, _LONGEST_S)
        if self.key is not None and not re.fullmatch(r"[!-~]{1,256}", self.key):
            raise SpecError("key is not a gateway's key; use 1 to 256 printable characters without a blank")
        if self.certificate is not None:
            _check_certificate(self.certificate)


def _check(name: str, given: float, least: float, most: float) -> None:
    """Check the range of a field; an integer `least` allows integers only."""
    kind = int if isinstance(least, int) else int | float
    if not isinstance(given, kind) or isinstance(given, bool) or not least <= given <= most:
        allowed = f"a whole number from {least} to {most}" if kind is int else f"{least:g} to {most:g} seconds"
        raise SpecError(f"{name} is {given!r}; use {allowed}")


def _check_certificate(path: str | Path) -> None:
    """Check that the file holds certificates: gRPC would take any for a missing server."""
    if not Path(path).is_file():
        raise SpecError(f"certificate is {str(path)!r}; use a PEM file that exists")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:
        raise SpecError(
            f"certificate is {str(path)!r}, where no certificate can be read ({error}); use a PEM file that has "
            "-----BEGIN CERTIFICATE-----"
        ) from None


@dataclass(frozen=True)
class Address:
    """The address of a tritonserver for one protocol."""

    protocol: str
    """`grpc` or `http`."""
    host_port: str
    tls: bool = False
    """Whether the connection is encrypted and the server's certificate checked."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse `url`: `grpc://host:port` or `http://host:port`, and `grpcs` or `https` for TLS; else a SpecError."""
        found = re.fullmatch(rf"(grpc|http)(s?)://((?:{_HOST}):(\d{{1,5}}))/?", url)
        if not found or not 1 <= int(found[4]) <= 65535:
            raise SpecError(
                f"{url!r} is not the address of a tritonserver; use grpc://host:8001 or http://host:8000, or for a "
                "gateway with TLS grpcs://host:8443 or https://host:8443"
            )
        return cls(found[1], found[3], tls=bool(found[2]))

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.tls else ''}://{self.host_port}"

    def check_key(self, options: Options) -> None:
        """Raises SpecError if a key would travel to another machine in plain text."""
        if options.key is not None and not self.tls and not is_loopback(self.host_port):
            raise SpecError(f"{self} would send the key in plain text; use {self.protocol}s://{self.host_port}")


def check_model(name: str) -> str:
    """Return `name`; raises SpecError unless it can be the name of a classifier."""
    try:
        return check_name(name)
    except ValueError as error:
        hint = "; give the classifier's name, and pass full=True to classify" if name.endswith("_full") else ""
        raise SpecError(f"model {name!r} is not a valid classifier name: {error}{hint}") from None


def check_request_id(name: str) -> str:
    """Return `name`; raises SpecError unless it is safe in logs and headers."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", name):
        raise SpecError(f"request_id is {name!r:.100}; use 1 to 64 of letters, digits and . _ : -")
    return name
