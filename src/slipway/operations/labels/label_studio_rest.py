"""Speaks to a Label Studio over REST: requests with a deadline, and errors in words."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit

from slipway.contract import ServingError, SpecError
from slipway.operations.labels.settings import HERE, LabelStudio
from slipway.system.timed_http import timed_opener

NOT_FOUND = 404
TRIED = "1.23"
"""Version with which this was tried, in any patch release."""
MOST_BYTES = 256 * 2**20
_BLOCK_BYTES = 2**16


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another address."""

    def redirect_request(self, *_: object) -> None:
        return None


class Rest:
    """Requests to one Label Studio.

    Every method raises ServingError if it does not answer in time, or not as Label Studio does, and SpecError if it
    refuses the token.
    """

    def __init__(self, settings: LabelStudio, token: str) -> None:
        self.url, self._timeout_s = settings.url, settings.timeout_s
        self._handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if urlsplit(settings.url).hostname in HERE:
            self._handlers.append(urllib.request.ProxyHandler({}))
        self._authorization = f"Token {token}"
        self.version = self._version()
        if token.count(".") == 2:  # a personal access token is exchanged for a short-lived one
            access = self.post("/api/token/refresh", {"refresh": token})
            self._authorization = f"Bearer {self.field(access, 'access', str)}"

    def get(self, path: str, **query: object) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, content: object) -> Any:
        return self._ask("POST", path, content)

    def patch(self, path: str, content: object) -> Any:
        return self._ask("PATCH", path, content)

    def find(self, path: str) -> Any | None:
        """Get an object as `get` does; None if it does not exist."""
        return self._ask("GET", path, may_miss=True)

    def delete(self, path: str) -> None:
        """Delete an object that may be gone already."""
        self._ask("DELETE", path, may_miss=True)

    def field(self, answer: object, name: str, kind: type) -> Any:
        """A field of an answer; raises ServingError if the answer does not have it."""
        if not isinstance(answer, Mapping) or not isinstance(answer.get(name), kind):
            raise self.otherwise(f"{name} is missing in an answer")
        return answer[name]

    def otherwise(self, what: str) -> ServingError:
        """The error for an answer that this release does not understand."""
        return ServingError(
            f"{self.url}: Label Studio {self.version} answers otherwise than {TRIED}, with which this was tried: {what}"
        )

    def _version(self) -> str:
        self.version = "unknown"
        try:
            answer = self.get("/api/version")
        except ServingError as error:
            if "does not answer" in str(error):
                raise
            raise ServingError(
                f"{self.url}: not a Label Studio: it has no /api/version; look at label_studio.url"
            ) from None
        found = answer.get("release") if isinstance(answer, Mapping) else None
        if not isinstance(found, str):
            raise ServingError(
                f"{self.url}: not a Label Studio: /api/version names no release; look at label_studio.url"
            )
        if found.split(".")[:2] != TRIED.split("."):
            raise ServingError(
                f"{self.url}: Label Studio {found}; this was tried with {TRIED} alone, and another version may change "
                f"what an answer means; run {TRIED}, in any patch release (docs/labels.md)"
            )
        return found

    def _ask(self, method: str, path: str, content: object = None, *, may_miss: bool = False) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        opener = timed_opener(time.monotonic() + self._timeout_s, *self._handlers)
        try:
            with opener.open(request, timeout=self._timeout_s) as answer:
                text = self._read(answer)
        except urllib.error.HTTPError as error:
            if may_miss and error.code == NOT_FOUND:
                return None
            raise self._refused(method, path, error) from None
        except (urllib.error.URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            late = isinstance(reason, TimeoutError)
            why = f"within {self._timeout_s:g} s" if late else f"({reason})"
            raise ServingError(
                f"{self.url}: Label Studio does not answer {why}; start it (docs/labels.md), and run this again"
            ) from None
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.otherwise(f"{method} {path.partition('?')[0]} gives no JSON") from None

    def _read(self, answer: HTTPResponse) -> bytes:
        blocks: list[bytes] = []
        size = 0
        while block := answer.read1(_BLOCK_BYTES):
            blocks.append(block)
            size += len(block)
            if size > MOST_BYTES:
                raise self.otherwise(f"an answer of over {MOST_BYTES // 2**20} MiB")
        return b"".join(blocks)

    def _refused(self, method: str, path: str, error: urllib.error.HTTPError) -> ServingError | SpecError:
        where = f"{method} {path.partition('?')[0]}"
        said = ""
        with suppress(OSError, HTTPException):  # it broke off
            said = error.read(400).decode(errors="replace").strip()
        if error.code in (401, 403):
            return SpecError(
                f"{self.url}: refuses the token ({error.code} to {where}); write that of a user who may change the "
                "project into label_studio.token_file. Legacy tokens must be switched on in Label Studio"
            )
        if error.code in range(300, 400):
            return ServingError(
                f"{self.url}: {where} is redirected to {error.headers.get('Location')}; give that address"
            )
        return ServingError(f"{self.url}: Label Studio {self.version} answers {error.code} to {where}: {said}")
