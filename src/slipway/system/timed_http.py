"""HTTP connections of which the whole answer has a deadline."""

import http.client
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class _Deadline:
    end_s: float
    """Time at which all must be over, by `time.monotonic`."""
    idle_s: float
    """Longest wait for a byte."""

    @property
    def left_s(self) -> float:
        """Seconds that the next call may take; raises TimeoutError at the end."""
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return min(left_s, self.idle_s)


class TimedConnection(http.client.HTTPConnection):
    """A connection that ends `timeout` seconds after it began to connect; with `end_s`, then and after `timeout` idle
    seconds.

    With `http.client` alone each read may take the timeout, so a server that sends a byte at a time is waited for
    without an end. Here reading raises TimeoutError then, whether it reads a status, headers or a body, and so does
    sending.
    """

    def __init__(self, *arguments: Any, end_s: float | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._end_s = end_s

    def connect(self) -> None:
        assert self.timeout is not None
        end_s = time.monotonic() + self.timeout if self._end_s is None else self._end_s
        self._deadline = _Deadline(end_s, self.timeout)
        # A socket with the deadline from the first, since a proxy's answer is read before `connect` is over.
        self._create_connection = partial(_connected, self._deadline)
        super().connect()


def _connected(deadline: _Deadline, address: tuple[str, int], _: float, source_address: Any = None) -> socket.socket:
    return _TimedSocket(socket.create_connection(address, deadline.left_s, source_address), deadline)


class _TimedTlsConnection(TimedConnection, http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, _TimedTlsSocket)
        self.sock.deadline = self._deadline


class _TimedSocket(socket.socket):
    def __init__(self, connected: socket.socket, deadline: _Deadline) -> None:
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self._deadline = deadline
        self.settimeout(deadline.left_s)

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        self.settimeout(self._deadline.left_s)
        return super().recv_into(*arguments, **named)

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self._deadline.left_s)
        super().sendall(*arguments)


class _TimedTlsSocket(ssl.SSLSocket):
    deadline: _Deadline
    """Set after the handshake, which has the time-out that is left when it begins."""

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        self.settimeout(self.deadline.left_s)
        return super().recv_into(*arguments, **named)

    def send(self, *arguments: Any) -> int:  # `sendall` calls it
        self.settimeout(self.deadline.left_s)
        return super().send(*arguments)


class _TimedHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, end_s: float) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)
        self._end_s = end_s

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(TimedConnection, end_s=self._end_s), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        context.sslsocket_class = _TimedTlsSocket
        return self.do_open(partial(_TimedTlsConnection, end_s=self._end_s, context=context), req)


def timed_opener(
    end_s: float, *handlers: urllib.request.BaseHandler | type[urllib.request.BaseHandler]
) -> urllib.request.OpenerDirector:
    """An opener whose requests are over at `end_s` by `time.monotonic`: redirects and bodies included.

    The timeout of `open` is the longest wait for a byte.
    """
    return urllib.request.build_opener(_TimedHandler(end_s), *handlers)
