"""The client for code without an event loop, and for notebooks, which run their own."""

import asyncio
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar

from slipway.client.core import CLOSED, FORKED, Core
from slipway.client.errors import ClientError
from slipway.client.images import Source, batches, each
from slipway.client.options import Options
from slipway.client.result import Result

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


class Client:
    """A client of one classifier on one tritonserver. Use it with `with`; any thread may call it.

    It runs an event loop in a thread of its own, from the first call until `close`. A forked child cannot use a client
    that its parent has used; it must make its own.

    Args:
        url: `grpc://host:port` or `http://host:port`; `grpcs` and `https` for a gateway with TLS.
        model: the classifier's name.
        options: deadlines, batch size, concurrency, whether to wait for a server that restarts, and a gateway's key.

    Raises:
        SpecError: the address or the name is invalid.
    """

    def __init__(self, url: str, *, model: str, options: Options | None = None) -> None:
        self._core = Core(url, model=model, options=options or Options())
        self._loop = BackgroundLoop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the requests under way, close the connection, and end the thread."""
        self._loop.close(self._core.close)

    def classifiers(self) -> list[str]:
        """The names of the classifiers that the server has ready.

        Raises:
            ClientError: the server does not answer.
        """
        return self._loop.run(self._core.classifiers())

    def classify(self, image: Source, *, full: bool = False, request_id: str | None = None) -> Result:
        """Classify one image.

        Args:
            image: an image as described at `Source`; a folder is an error.
            full: return the probability of every class and the embedding too.
            request_id: the prefix of the request's id; random by default.

        Raises:
            ImageError: the image cannot be read, or is not an image.
            RequestError: the server did not answer this request; the next one may succeed.
            ServerError: the server answers no request.
        """
        return self._loop.run(self._core.classify(image, full=full, request_id=request_id))

    def classify_many(
        self, images: Source | Iterable[Source], *, full: bool = False, request_id: str | None = None
    ) -> Iterator[Result]:
        """Classify images in batches, several at once; results keep the order of the images.

        An image without an answer gives a result with an `error`, and the others continue. Images are taken from the
        iterable as results are consumed, in the caller's thread, and a few batches are in memory at a time. Closing the
        iterator cancels the requests under way.

        Args:
            images: one image, or several, as described at `Source`; a folder stands for every image below it.
            full: return the probability of every class and the embedding too.
            request_id: the prefix of the ids of the requests; random by default.

        Raises:
            ServerError: the server stopped answering; all earlier results were yielded.
        """
        ids = self._core.request_ids(request_id)
        size = self._loop.run(self._core.batch_size(full=full))
        under_way: deque[Future[list[Result]]] = deque()
        try:
            for batch in batches(each(images), size=size):
                call = self._core.classify_batch(batch, full=full, request_id=next(ids))
                under_way.append(self._loop.submit(call))
                if len(under_way) == self._core.window:
                    yield from self._loop.wait(under_way[0])
                    under_way.popleft()
            while under_way:
                yield from self._loop.wait(under_way[0])
                under_way.popleft()
        finally:
            self._loop.cancel(under_way)
