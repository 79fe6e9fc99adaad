"""An event loop in a thread: what lets one asynchronous client serve callers that have no loop, or another one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from slipway.client.core import CLOSED
from slipway.client.errors import ClientError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for any thread but its own, from when it is made until `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open, self._lock = True, threading.Lock()
        # A daemon: a client that nobody closed must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="slipway-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # cancels at its end what still runs
            runner.get_loop().run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._open:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        raise ClientError(CLOSED)

    def wait(self, future: Future[T]) -> T:
        """Its result. Ctrl-C here cancels what it waits for."""
        try:
            return future.result()
        except CancelledError:
            raise ClientError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.wait(self.submit(coroutine))

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Await `last()` in the loop, cancel what still runs, and end the thread. A second call does nothing."""

        async def end() -> None:
            try:
                await last()
            finally:
                self._loop.stop()

        with self._lock:
            if self._open:
                self._open = False
                asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join()
