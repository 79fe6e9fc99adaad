"""Parses the names of images on a command line: `LAYOUT`, `LAYOUT:TAG`, `LAYOUT@sha256:…`, and `REGISTRY/NAME:TAG`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.errors import SpecError

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
OCI_LAYOUT, OCI = "oci-layout:", "oci://"
"""Prefixes by which `slipway serve` tells an image from a folder."""


def _divided(text: str) -> tuple[str, str | None, str | None]:
    """Divide a reference into the text before the tag or digest, the tag, and the digest.

    Raises:
        SpecError: the digest or tag is invalid.
    """
    before, at, digest = text.partition("@")
    if at:
        if not _DIGEST.fullmatch(digest):
            raise SpecError(f"{text}: invalid digest {digest!r}; write @sha256: and 64 hexadecimal digits")
        return before, None, digest
    before, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, None, None
    if not TAG.fullmatch(tag):
        raise SpecError(f"{text}: invalid tag {tag!r}; use up to 128 letters, digits and ._- after the colon")
    return before, tag, None


def _port(host: str) -> int | None:
    """The port that a host is given with, if any."""
    given = re.search(r":([0-9]+)$", host)
    return int(given[1]) if given else None


@dataclass(frozen=True)
class LayoutReference:
    """An image in a layout. Without tag and digest, it is the only tagged image there."""

    folder: Path
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        if text and Path(text).is_dir():
            return cls(Path(text))
        folder, tag, digest = _divided(text)
        if not folder:
            raise SpecError(f"{text!r}: give a folder, FOLDER:TAG or FOLDER@sha256:…")
        if ":" in Path(folder).name or not folder.isprintable():
            raise SpecError(f"{text!r}: a folder's name has neither a colon nor a control character; give FOLDER:TAG")
        return cls(Path(folder), tag, digest)

    def __str__(self) -> str:
        return f"{self.folder}" + (f":{self.tag}" if self.tag else f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class RegistryReference:
    """An image in a registry."""

    host: str
    """Host and port."""
    name: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference; of a tag before a digest, the digest counts.

        Raises:
            SpecError: it is not `HOST[:PORT]/NAME:TAG` or `HOST[:PORT]/NAME@sha256:…`.
        """
        if "://" in text.removeprefix(OCI):
            raise SpecError(f"{text}: leave out the scheme: HOST[:PORT]/NAME:TAG")
        before, tag, digest = _divided(text.removeprefix(OCI))
        host, slash, name = before.partition("/")
        if digest is not None and (named := _divided(name))[1] is not None:
            name = named[0]
        if not (slash and _HOST.fullmatch(host) and _NAME.fullmatch(name) and len(name) < 256):
            raise SpecError(
                f"{text}: not a registry's reference; write HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:"
                "DIGEST, the name in lower case, such as registry.example:5000/team/models:v1"
            )
        if (port := _port(host)) is not None and not 1 <= port <= 65535:
            raise SpecError(f"{text}: invalid port {port}; use one from 1 to 65535")
        if tag is None and digest is None:
            raise SpecError(f"{text}: no tag; write {host}/{name}:TAG")
        return cls(host, name, tag, digest)

    @property
    def port(self) -> int:
        """The port of the registry: that of HTTPS unless it is given."""
        return _port(self.host) or 443

    @property
    def target(self) -> str:
        """The part of a URL that names the manifest."""
        return self.digest or self.tag or ""

    def __str__(self) -> str:
        return f"{self.host}/{self.name}" + (f"@{self.digest}" if self.digest else f":{self.tag}")
