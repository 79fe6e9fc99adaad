"""The client for code that has an event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from slipway.client.core import Core
from slipway.client.images import Source, batches, each
from slipway.client.options import Options
from slipway.client.result import Result


class AsyncClient:
    """A client of one classifier on one tritonserver. Use it with `async with`, in one event loop.

    Args:
        url: `grpc://host:port` or `http://host:port`; `grpcs` and `https` for a gateway with TLS.
        model: the classifier's name.
        options: deadlines, batch size, concurrency, whether to wait for a server that restarts, and a gateway's key.

    Raises:
        SpecError: the address or the name is invalid.
    """

    def __init__(self, url: str, *, model: str, options: Options | None = None) -> None:
        self._core = Core(url, model=model, options=options or Options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the requests under way, and close the connection."""
        await self._core.close()

    async def classifiers(self) -> list[str]:
        """The names of the classifiers that the server has ready.

        Raises:
            ClientError: the server does not answer.
        """
        return await self._core.classifiers()

    async def classify(self, image: Source, *, full: bool = False, request_id: str | None = None) -> Result:
        """Classify one image. Cancelling this call cancels the request.

        Args:
            image: an image as described at `Source`; a folder is an error.
            full: return the probability of every class and the embedding too.
            request_id: the prefix of the request's id; random by default.

        Raises:
            ImageError: the image cannot be read, or is not an image.
            RequestError: the server did not answer this request; the next one may succeed.
            ServerError: the server answers no request.
        """
        return await self._core.classify(image, full=full, request_id=request_id)

    async def classify_many(
        self, images: Source | Iterable[Source], *, full: bool = False, request_id: str | None = None
    ) -> AsyncIterator[Result]:
        """Classify images in batches, several at once; results keep the order of the images.

        An image without an answer gives a result with an `error`, and the others continue. Images are taken from the
        iterable as results are consumed, and a few batches are in memory at a time. The iterable runs in the event
        loop, so it must not block. To stop early, close the iterator (`contextlib.aclosing`).

        Args:
            images: one image, or several, as described at `Source`; a folder stands for every image below it.
            full: return the probability of every class and the embedding too.
            request_id: the prefix of the ids of the requests; random by default.

        Raises:
            ServerError: the server stopped answering; all earlier results were yielded.
        """
        ids = self._core.request_ids(request_id)
        size = await self._core.batch_size(full=full)
        under_way: deque[asyncio.Task[list[Result]]] = deque()
        try:
            for batch in batches(each(images), size=size):
                call = self._core.classify_batch(batch, full=full, request_id=next(ids))
                under_way.append(asyncio.create_task(call))
                if len(under_way) == self._core.window:
                    for result in await under_way[0]:
                        yield result
                    under_way.popleft()
            while under_way:
                for result in await under_way[0]:
                    yield result
                under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
