"""Notices at once that a process of a server ended, or that a reload was requested."""

import os
import select
import weakref
from contextlib import suppress

from slipway.serving import process as processes
from slipway.serving.server import Server


class Bell:
    """A descriptor that becomes readable when it is rung, by any thread, and stays so until each ring is heard."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def rings(self, timeout_s: float) -> bool:
        """Whether it is rung within this time; it stays rung."""
        return bool(select.select([self.descriptor], [], [], timeout_s)[0])

    def heard(self) -> None:
        """Take one ring away."""
        with suppress(BlockingIOError):  # it was not rung
            os.eventfd_read(self.descriptor)


class ProcessWatch:
    """Watches the processes of a server by file descriptors that become readable when one ends, and a bell."""

    def __init__(self, server: Server, bell: Bell) -> None:
        self._server, self._bell = server, bell
        self._stubs: dict[int, str] = {}
        self._poll = select.poll()

    def __enter__(self) -> "ProcessWatch":
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
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
        self._poll.register(self._bell.descriptor, select.POLLIN)

    def wait(self, timeout_s: float) -> list[str]:
        """The steps of which a process ended, as soon as one does; none after the time-out, or while the bell rings."""
        ended = {descriptor for descriptor, _ in self._poll.poll(1000 * timeout_s)} - {self._bell.descriptor}
        return sorted({self._stubs[descriptor] for descriptor in ended} - {""})

    def _forget(self) -> None:
        for descriptor in self._stubs:
            os.close(descriptor)
        self._stubs = {}
