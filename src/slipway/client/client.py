"""The client for code without an event loop, and for notebooks, which have one of their own."""

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
    """Asks one classifier of one tritonserver. Use as `with`; any thread may call it.

    It has an event loop of its own in a thread of its own, which live from the first call until `close`. A forked child
    cannot use a client that its parent has used: it makes its own.

    Args:
        url: `grpc://host:port` or `http://host:port`.
        model: the classifier's name.
        options: deadlines, batches, how many requests at once, whether to wait for a server that restarts.

    Raises:
        SpecError: the address or the name is not allowed.
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
        """End what is under way, the connection and the thread."""
        self._loop.close(self._core.close)

    def classifiers(self) -> list[str]:
        """The classifiers that the server has ready.

        Raises:
            ClientError: it does not say.
        """
        return self._loop.run(self._core.classifiers())

    def classify(self, image: Source, *, full: bool = False, request_id: str | None = None) -> Result:
        """Classify one image.

        Args:
            image: see `Source`; not a folder.
            full: ask for every class's probability and the embedding too.
            request_id: what the request's own id begins with; by default something random.

        Raises:
            ImageError: the image cannot be read, or is none.
            RequestError: the server did not answer this request.
            ServerError: the server answers none.
        """
        return self._loop.run(self._core.classify(image, full=full, request_id=request_id))

    def classify_many(
        self, images: Source | Iterable[Source], *, full: bool = False, request_id: str | None = None
    ) -> Iterator[Result]:
        """Classify images in batches, several at once; the results are in the order of the images.

        An image without an answer is a result with an `error`, and the others go on. Images are taken from the iterable
        as answers are taken from here, in the caller's thread, and a few batches are in memory at a time. What is under
        way ends with the iterator.

        Args:
            images: one or many, see `Source`, or folders, which stand for every image below them.
            full: ask for every class's probability and the embedding too.
            request_id: what the ids of the requests begin with; by default something random.

        Raises:
            ServerError: the server answers no request any more; every result before was given.
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
