"""A client of the OCI Distribution API 1.1: one name of one registry, with only the standard library.

Nothing is retried: call an interrupted push or pull again, and it transfers the missing parts.
"""

import base64
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import ip_address
from typing import IO, cast
from urllib.parse import urlencode, urljoin, urlsplit

from slipway.contract import OciImageError
from slipway.oci.credentials import Credentials, find_credentials
from slipway.oci.documents import INDEX, MANIFEST, MOST_BYTES, Descriptor, Index
from slipway.oci.layout import DAMAGED
from slipway.oci.reference import RegistryReference
from slipway.system.text import shown
from slipway.system.timed_http import timed_opener

TIMEOUT_S = 60.0
"""Seconds without a byte after which a registry is given up, and seconds for all of an exchange but its blob."""
LEAST_BYTES_PER_S = 1 << 16
"""Rate of the slowest blob that is waited for, in bytes a second."""
_FOREIGN = tuple(f"application/vnd.docker.distribution.manifest.{kind}v2+json" for kind in ("", "list."))
"""Docker's own media types of manifests. They are requested too, so that a registry names such a manifest instead of
converting it."""
BLOCK_BYTES = 1 << 20
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_NAMES = "call the registry by a name of its certificate"
_CERTIFICATES = {9: "set the clock right", 10: "have it renewed, or set the clock right", 62: _NAMES, 64: _NAMES}
"""The remedy by OpenSSL's number of the fault (X509_V_ERR): not yet valid, expired, another name, another address."""
Body = Callable[[], Iterable[bytes]]


class AbsentError(OciImageError):
    """The registry does not have it."""


class Registry:
    """Blobs and manifests of one name."""

    def __init__(self, reference: RegistryReference, *, plain_http: bool = False) -> None:
        self._host, self._name = reference.host, reference.name
        local = _is_local(reference.host)
        self._root = f"{'http' if plain_http or local else 'https'}://{reference.host}/v2/"
        # Credentials stay with the registry: urllib would send a header of the request to wherever it is redirected.
        self._handlers = [_Redirects(self._check_encrypted), *([urllib.request.ProxyHandler({})] if local else [])]
        self._authorization: str | None = None

    def check(self) -> None:
        """Raises OciImageError unless the host answers as a registry."""
        with self._answer("GET", self._root, allowed=(200, 400, 404)) as answer:
            if answer.status == 400 and self._root.startswith("http://"):
                raise OciImageError(
                    f"{self._host}: answers 400 without TLS; if it speaks TLS, leave out --plain-http, and call it by "
                    "another name than localhost and 127.0.0.1, which are asked without TLS"
                )
            if answer.status != 200 or "html" in answer.headers.get("Content-Type", ""):
                raise OciImageError(
                    f"{self._host}: not a registry: {self._root} has no API of version 2; check the host"
                )

    def has_blob(self, blob: Descriptor) -> bool:
        with self._answer("HEAD", self._url("blobs", blob.digest), allowed=(200, 404)) as answer:
            return answer.status == 200

    def put_blob(self, blob: Descriptor, body: Body) -> None:
        with self._answer("POST", self._url("blobs", "uploads/"), body=lambda: [], size=0, allowed=(202,)) as answer:
            location = urljoin(answer.url, answer.headers.get("Location", ""))
        self._check_encrypted(location)
        url = f"{location}{'&' if urlsplit(location).query else '?'}{urlencode({'digest': blob.digest})}"
        headers = {"Content-Type": "application/octet-stream"}
        with self._answer("PUT", url, body=body, size=blob.size, headers=headers, allowed=(201,)):
            pass

    def blob(self, blob: Descriptor) -> Iterator[bytes]:
        """The content of a blob, which is at most as long as the descriptor says.

        Raises:
            AbsentError: the registry does not have it.
            OciImageError: it is shorter or longer, or the connection broke.
        """
        left = blob.size
        with self._answer("GET", self._url("blobs", blob.digest), given=blob.size) as answer:
            while block := answer.read(min(BLOCK_BYTES, left + 1)):
                left -= len(block)
                if left < 0:
                    raise OciImageError(f"it is longer than the {blob.size:,} bytes of the image; {DAMAGED}")
                yield block
        if left:
            raise OciImageError(f"it ended {left:,} bytes early; pull again, and if it ends there again, {DAMAGED}")

    def manifest(self, target: str) -> tuple[bytes, str]:
        """The bytes and the media type of a manifest or index, by tag or digest; raises AbsentError without one."""
        headers = {"Accept": ", ".join((MANIFEST, INDEX, *_FOREIGN))}
        with self._answer("GET", self._url("manifests", target), headers=headers) as answer:
            data = self._document(answer, what=f"the manifest {target}")
            named, media_type = answer.headers.get("Docker-Content-Digest", ""), answer.headers.get_content_type()
        if named.startswith("sha256:") and named != (found := Descriptor.of(data, media_type).digest):
            raise OciImageError(f"{self._host}: the manifest {target} is {found}, and {shown(named)} there; {DAMAGED}")
        return data, media_type

    def _document(self, answer: HTTPResponse, *, what: str) -> bytes:
        """The whole of a small answer; raises OciImageError if it is larger than a registry may give."""
        data = answer.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise OciImageError(
                f"{self._host}: {what} is larger than {MOST_BYTES:,} bytes, so it is not of slipway image"
            )
        if answer.length:
            raise OciImageError(f"{self._host}: {what} ended {answer.length:,} bytes early; call again")
        return data

    def put_manifest(self, data: bytes, media_type: str, *, target: str) -> bool:
        """Write a manifest under a tag or its digest; returns whether the registry lists artefacts by itself."""
        url, headers = self._url("manifests", target), {"Content-Type": media_type}
        with self._answer("PUT", url, body=lambda: [data], size=len(data), headers=headers, allowed=(201,)) as answer:
            return "OCI-Subject" in answer.headers

    def referrers(self, subject: Descriptor) -> tuple[Descriptor, ...]:
        """The artefacts of an image, by the API or, where a registry lacks it, by the tag that replaces it."""
        try:
            with self._answer("GET", self._url("referrers", subject.digest)) as answer:
                data = self._document(answer, what="the list of artefacts")
                if 'rel="next"' in answer.headers.get("Link", ""):
                    raise OciImageError(
                        f"{self._host}: lists the artefacts of {subject.digest} in several parts, which is not "
                        "supported; remove those that are not of slipway image"
                    )
        except AbsentError:
            try:
                data, _ = self.manifest(referrers_tag(subject))
            except AbsentError:
                return ()
        return Index.from_bytes(data, source=f"{self._host}: the list of artefacts").manifests

    def _url(self, kind: str, target: str) -> str:
        return f"{self._root}{self._name}/{kind}/{target}"

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int = 0,
        given: int = 0,
        allowed: tuple[int, ...] = (200,),
    ) -> Iterator[HTTPResponse]:
        """The answer to a request, with one more try after the registry asked for credentials.

        Args:
            size: of the body, in bytes.
            given: size of the blob in the answer, in bytes. Redirects, credentials and both bodies together have
                `TIMEOUT_S`, and a second for each `LEAST_BYTES_PER_S` of the bodies.

        Raises:
            AbsentError: status 404.
            OciImageError: the registry cannot be reached, or refuses.
        """
        end_s = time.monotonic() + TIMEOUT_S + (size + given) / LEAST_BYTES_PER_S
        self._opener = timed_opener(end_s, *self._handlers)
        with _reachable(self._host, self._root):
            answer = self._send(method, url, headers or {}, body, size)
            if answer.status == 401 and self._is_own(answer.url):  # another host gets no credentials of this one
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.close()
                self._authorization = self._authorize(challenge)
                answer = self._send(method, url, headers or {}, body, size)
            with answer:
                if answer.status not in allowed:
                    raise self._refusal(answer, method, url)
                yield answer

    def _is_own(self, url: str) -> bool:
        """Whether a URL is of the registry itself, by scheme, host and port."""
        return urlsplit(url)[:2] == urlsplit(self._root)[:2]

    def _check_encrypted(self, url: str) -> None:
        """Raises OciImageError if a registry that is asked over TLS sends us on to something without it."""
        if self._root.startswith("https://") and not url.startswith("https://"):
            raise OciImageError(
                f"{self._host}: sends us on to {shown(url.partition('?')[0])}, which is not encrypted; refused; let "
                "the registry or the proxy before it give addresses of https"
            )

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None, size: int) -> HTTPResponse:
        request = urllib.request.Request(url, method=method, headers=dict(headers))
        if body is not None:
            request.data = body()
            request.add_header("Content-Length", str(size))
        if self._authorization is not None and self._is_own(url):
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return cast(HTTPResponse, self._opener.open(request, timeout=TIMEOUT_S))
        except urllib.error.HTTPError as error:  # an answer too
            return cast(HTTPResponse, error)

    def _authorize(self, challenge: str) -> str | None:
        """The header that the registry's challenge asks for."""
        credentials = find_credentials(self._host)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return None if credentials is None else _basic(credentials)
        if scheme.lower() != "bearer":
            raise OciImageError(
                f"{self._host}: asks for credentials in a way that is not supported: {shown(challenge)}"
            )
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm", "")
        if not (realm.startswith("https://") or (realm.startswith("http://") and self._root.startswith("http://"))):
            raise OciImageError(f"{self._host}: sends credentials to {shown(realm)!r}, which is not encrypted; refused")
        wanted = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        request = urllib.request.Request(f"{realm}?{urlencode(wanted)}")
        if credentials is not None:
            request.add_unredirected_header("Authorization", _basic(credentials))
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                given = json.loads(self._document(answer, what="the token"))
            return f"Bearer {given.get('token') or given['access_token']}"
        except urllib.error.HTTPError as error:
            error.close()
            return None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise OciImageError(f"{self._host}: {shown(realm)} gave no token") from None

    def _refusal(self, answer: HTTPResponse, method: str, url: str) -> OciImageError:
        said, status = _reason(answer), answer.status
        if status == 404:
            return AbsentError(f"{self._host}: {self._name} has no {shown(url.partition(f'{self._name}/')[2])}{said}")
        if status in (401, 403):
            credentials = find_credentials(self._host)
            who = "anonymous users" if credentials is None else f"user {credentials.user} ({credentials.origin})"
            return OciImageError(
                f"{self._host}: refuses {who} for {self._name}{said}; log in (docker login {self._host}, or skopeo "
                "login), or ask for the right"
            )
        return OciImageError(
            f"{self._host}: {method} {shown(urlsplit(url).path)} failed with status {status}{said}; the registry's log "
            "says why"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect after a check of where it leads."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        self._check(urljoin(req.full_url, headers.get("Location") or headers.get("URI", "")))
        return cast(HTTPResponse | None, super().http_error_302(req, fp, code, msg, headers))

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def referrers_tag(subject: Descriptor) -> str:
    """The tag that lists the artefacts of an image in a registry without that API."""
    return subject.digest.replace(":", "-")


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _reason(answer: HTTPResponse) -> str:
    """The first error of a registry's answer, in parentheses; empty without one."""
    try:
        first = json.loads(answer.read(1 << 16))["errors"][0]
        return f" ({shown(first.get('code'))}: {shown(first.get('message'))})"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, HTTPException):
        return ""


@contextmanager
def _reachable(host: str, root: str) -> Iterator[None]:
    """Turn an error of the network into a sentence."""
    try:
        yield
    except urllib.error.URLError as error:
        raise _unreachable(host, root, error.reason) from None
    except (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError, HTTPException, ValueError) as error:
        raise _unreachable(host, root, error) from None


def _unreachable(host: str, root: str, reason: object) -> OciImageError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        remedy = _CERTIFICATES.get(reason.verify_code, "give the file of its authority in SSL_CERT_FILE")
        return OciImageError(f"{host}: its certificate is not trusted ({reason.verify_message}); {remedy}")
    if isinstance(reason, ssl.SSLError):
        return OciImageError(f"{host}: does not speak TLS ({reason.reason}); a registry without it needs --plain-http")
    said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return OciImageError(
        f"{host}: cannot be reached at {root} ({shown(said)}); check the host and port, and call again"
    )
