"""Notices at once that a process of a server ended."""

import os
import select
from contextlib import suppress
from typing import Any

from slipway.serving import process as processes
from slipway.serving.server import Server


class Watched:
    """Watches the processes of a server by file descriptors that become readable when one ends."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stubs: dict[int, str] = {}
        self._poll = select.poll()

    def __enter__(self) -> "Watched":
        self.look()
        return self

    def __exit__(self, *_: Any) -> None:
        self._forget()

    def look(self) -> None:
        """Watch the processes that run now."""
        self._forget()
        self._poll = select.poll()
        for pid, step in {**processes.stubs(self._server.process.pid), self._server.process.pid: ""}.items():
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                self._stubs[descriptor] = step
                self._poll.register(descriptor, select.POLLIN)

    def wait(self, timeout_s: float) -> list[str]:
        """The steps of which a process ended, as soon as one does; none after the time-out."""
        ended = {descriptor for descriptor, _ in self._poll.poll(1000 * timeout_s)}
        return sorted({self._stubs[descriptor] for descriptor in ended} - {""})

    def _forget(self) -> None:
        for descriptor in self._stubs:
            os.close(descriptor)
        self._stubs = {}
