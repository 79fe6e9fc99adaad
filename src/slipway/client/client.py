"""The client for code without an event loop, and for notebooks, which run their own."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from slipway.client.background import BackgroundLoop
from slipway.client.core import Core
from slipway.client.images import Source, batches, each
from slipway.client.options import Options
from slipway.client.result import Result


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
