"""An event loop in a thread, so that callers without a loop, or with another one, can use the asynchronous client."""

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from slipway.client.core import CLOSED, FORKED
from slipway.client.errors import ClientError

T = TypeVar("T")


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        # Not epoll: a forked child shares its parent's, and the parent never hears of what the child closes at its end.
        super().__init__(selectors.PollSelector())

    async def getaddrinfo(self, host: Any, port: Any, **hints: int) -> list[Any]:
        """Resolve in a daemon thread, so that neither `close` nor the program's end waits for a silent name server."""
        found: Future[list[Any]] = Future()
        found.set_running_or_notify_cancel()

        def resolve() -> None:
            try:
                found.set_result(socket.getaddrinfo(host, port, **hints))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

        threading.Thread(target=resolve, name="slipway-resolve", daemon=True).start()
        return await asyncio.wrap_future(found, loop=self)


class BackgroundLoop:
    """Runs coroutines for any thread but its own, from the first one until `close`, in the process of the first one."""

    _loop: _Loop
    _thread: threading.Thread

    def __init__(self) -> None:
        self._open, self._lock = True, threading.Lock()
        self._pid: int | None = None

    @property
    def forked(self) -> bool:
        """Whether the thread belongs to the parent of this process; if so, not even a lock may be touched."""
        return self._pid not in (None, os.getpid())

    def _start(self) -> None:
        """Start the thread. Called only when there is something to run: until then, a fork does no harm."""
        self._loop, self._pid = _Loop(), os.getpid()
        # A forked child that ends finds its parent's connections unclosed, and must not complain about them.
        self._loop.set_exception_handler(
            lambda loop, said: None if self.forked else loop.default_exception_handler(said)
        )
        # A daemon: a client that nobody closed must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="slipway-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # cancels at its end what still runs
            runner.get_loop().run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self.forked:
            coroutine.close()
            raise ClientError(FORKED)
        with self._lock:
            if self._open:
                if self._pid is None:
                    self._start()
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        raise ClientError(CLOSED)

    def wait(self, future: Future[T]) -> T:
        """Wait for the result of `future`. Ctrl-C cancels it."""
        if self.forked:
            raise ClientError(FORKED)
        try:
            return future.result()
        except CancelledError:
            raise ClientError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.wait(self.submit(coroutine))

    def cancel(self, futures: Iterable[Future[Any]]) -> None:
        for future in () if self.forked else futures:
            future.cancel()

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Await `last()` in the loop, cancel whatever still runs, and end the thread. A second call does nothing."""

        async def end() -> None:
            try:
                await last()
            finally:
                self._loop.stop()

        if self.forked:
            return
        with self._lock:
            if self._open and self._pid is not None:
                asyncio.run_coroutine_threadsafe(end(), self._loop)
            self._open = False
        if self._pid is not None:
            self._thread.join()
