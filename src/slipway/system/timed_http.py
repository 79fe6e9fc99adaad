"""HTTP connections of which the whole answer has a deadline."""

import http.client
import socket
import time
from typing import Any


class TimedConnection(http.client.HTTPConnection):
    """A connection that ends `timeout` seconds after it began to connect.

    With `http.client` alone each read may take the timeout, so a server that sends a byte at a time is waited for
    without an end. Here reading raises TimeoutError then, whether it reads a status, headers or a body.
    """

    def connect(self) -> None:
        assert self.timeout is not None
        end_s = time.monotonic() + self.timeout
        super().connect()
        timed = self.sock = _TimedSocket(self.sock, end_s)
        timed.wait_no_longer()


class _TimedSocket(socket.socket):
    def __init__(self, connected: socket.socket, end_s: float) -> None:
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self._end_s = end_s

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        self.wait_no_longer()
        return super().recv_into(*arguments, **named)

    def wait_no_longer(self) -> None:
        """Give the next call the time that is left."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left_s)
