"""The logic that both clients share: the model's limits, batches, retries and the reading of answers."""

import asyncio
import itertools
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from slipway.client.errors import ClientError, DeadlineError, ForbiddenError, ModelError, RequestError
from slipway.client.images import Source, load, parts
from slipway.client.options import Address, Options, check_model, check_request_id
from slipway.client.result import EMBEDDING, FULL_OUTPUTS, OUTPUTS, Result
from slipway.client.retry import Attempts, RetryBudget
from slipway.client.transport import Transport

T = TypeVar("T")
Row = Mapping[str, NDArray[Any]]

MAX_REQUEST_BYTES = 64 * 2**20
"""The images of one request together, in bytes; a larger image is sent alone. The server keeps several copies."""
CLOSED = "this client is closed; make another one"
FORKED = (
    "this client was used before this process was forked; make another one here, "
    "with an http:// address, or start workers by spawn"
)
_NO_CLASSIFIER = re.compile(r"[a-z]+_[0-9a-f]{12}|.*_full")


class Core:
    """One classifier on one server, asked from one event loop."""

    def __init__(self, url: str, *, model: str, options: Options) -> None:
        self._address = Address.parse(url)
        self._address.check_key(options)
        if options.shrink_px is not None:
            import slipway.client.shrink  # noqa: F401  # a missing library is an error here, not at each image
        self._model = check_model(model)
        self._options = options
        self._budget = RetryBudget()
        self._slots = asyncio.Semaphore(options.concurrency)
        self._limits: dict[str, int] = {}
        self._without_embedding: set[str] = set()
        self._transport: Transport | None = None
        self._pid: int | None = None
        self._closed = False

    @property
    def window(self) -> int:
        """Batches prepared or under way at once: more than `concurrency`, so that one slow answer stops no other."""
        return 2 * self._options.concurrency

    def request_ids(self, given: str | None) -> Iterator[str]:
        """An id for each request of a call; the prefix is `given`, or random."""
        base = secrets.token_hex(8) if given is None else check_request_id(given)
        return (f"{base}.{number}" for number in itertools.count())

    async def classifiers(self) -> list[str]:
        names = await self._ask(
            lambda deadline_s: self._connected().models(deadline_s=deadline_s), self._attempts(served=False)
        )
        return sorted(name for name in names if not _NO_CLASSIFIER.fullmatch(name))

    async def _served(self) -> str:
        try:
            return ", ".join(await self.classifiers()) or "none"
        except ForbiddenError:
            return "not listed by a gateway"

    async def batch_size(self, *, full: bool, attempts: Attempts | None = None) -> int:
        """The number of images in one request.

        Raises:
            ModelError: the server does not serve the model, or the model is not a classifier. The message lists those
                that the server has.
        """
        model, outputs = self._wanted(full)
        if model not in self._limits:
            try:
                config = await self._config(model, attempts)
                self._limits[model] = batch_limit(config, outputs=outputs)
                if EMBEDDING not in names_of(config):
                    self._without_embedding.add(model)
            except ModelError as error:
                raise ModelError(
                    f"model {model!r}: {error}; the classifiers that {self._address} serves: {await self._served()}"
                ) from None
        limit = self._limits[model]
        return min(self._options.batch_size or limit, limit)

    async def classify(self, image: Source, *, full: bool, request_id: str | None) -> Result:
        """Classify one image; raises ClientError if the server does not answer it."""
        ids = self.request_ids(request_id)
        attempts = self._attempts(served=False)
        await self.batch_size(full=full, attempts=attempts)  # for its errors: is there such a classifier?
        attempts.served = True
        (result,) = await self.classify_batch([image], full=full, request_id=next(ids), attempts=attempts)
        if result.error is not None:
            raise result.error
        return result

    async def classify_batch(
        self, batch: Sequence[Source], *, full: bool, request_id: str, attempts: Attempts | None = None
    ) -> list[Result]:
        """One result for each image, in order. The deadline is that of `attempts`, or starts when the batch is sent.

        Raises:
            DeadlineError: the deadline passed before the batch could be sent.
            ServerError: the server answers no request.
        """
        async with self._turn(attempts):
            loaded = await asyncio.to_thread(load, batch, shrink_px=self._options.shrink_px)
            images = [one for one in loaded if isinstance(one, bytes)]
            outcomes: list[Row | ClientError] = []
            for part in parts(images, limit_bytes=MAX_REQUEST_BYTES):
                outcomes += await self._outcomes(part, full=full, request_id=request_id, attempts=attempts)
        answers = iter(outcomes)
        return [
            Result.of(source, next(answers) if isinstance(one, bytes) else one, request_id=request_id)
            for source, one in zip(batch, loaded, strict=True)
        ]

    async def close(self) -> None:
        """Close the connection; requests under way end without an answer."""
        self._closed = True
        if self._transport is not None and self._pid == os.getpid():
            transport, self._transport = self._transport, None
            await transport.close()

    @asynccontextmanager
    async def _turn(self, attempts: Attempts | None) -> AsyncIterator[None]:
        """Hold one of the `concurrency` slots for the block."""
        try:
            async with asyncio.timeout(attempts.time_left_s() if attempts else None):
                await self._slots.acquire()
        except TimeoutError:
            raise DeadlineError(
                f"not sent within deadline_s {self._options.deadline_s:g}: this client has {self._options.concurrency} "
                "requests under way; raise concurrency or deadline_s, or send fewer requests at once"
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    async def _outcomes(
        self, images: Sequence[bytes], *, full: bool, request_id: str, attempts: Attempts | None
    ) -> Sequence[Row | ClientError]:
        model, outputs = self._wanted(full)
        if model in self._without_embedding:
            outputs = [name for name in outputs if name != EMBEDDING]

        def infer(deadline_s: float) -> Awaitable[dict[str, NDArray[Any]]]:
            return self._connected().infer(model, images, outputs=outputs, request_id=request_id, deadline_s=deadline_s)

        try:
            tensors = await self._ask(infer, attempts or self._attempts(served=True))
        except RequestError as error:
            return [type(error)(f"{error} (request {request_id})")] * len(images)
        return [{name: tensor[row] for name, tensor in tensors.items()} for row in range(len(images))]

    async def _config(self, model: str, attempts: Attempts | None) -> Mapping[str, Any]:
        return await self._ask(
            lambda deadline_s: self._connected().config(model, deadline_s=deadline_s),
            attempts or self._attempts(served=False),
        )

    def _attempts(self, *, served: bool) -> Attempts:
        return Attempts(self._options, budget=self._budget, served=served)

    async def _ask(self, call: Callable[[float], Awaitable[T]], attempts: Attempts) -> T:
        """Await `call(deadline_s)`, and again where a retry is allowed."""
        while True:
            try:
                return await call(attempts.time_left_s())
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task and task.cancelling():
                    raise
                raise ClientError(CLOSED) from None  # cancelled by `close`, not by the caller
            except ClientError as error:
                if self._closed:
                    raise ClientError(CLOSED) from None
                await asyncio.sleep(attempts.pause_s(error))

    def _connected(self) -> Transport:
        if self._closed:
            raise ClientError(CLOSED)
        if self._transport is None:
            self._transport, self._pid = connect(self._address, self._options), os.getpid()
        if self._pid != os.getpid():
            raise ClientError(FORKED)
        return self._transport

    def _wanted(self, full: bool) -> tuple[str, Sequence[str]]:
        return (f"{self._model}_full", FULL_OUTPUTS) if full else (self._model, OUTPUTS)


def batch_limit(config: Mapping[str, Any], *, outputs: Sequence[str]) -> int:
    """The `max_batch_size` of a classifier; its EMBEDDING output is optional.

    Raises:
        ModelError: the configuration belongs to another kind of model.
    """
    limit = int(config.get("max_batch_size", 0))
    if limit < 1 or not names_of(config) >= set(outputs) - {EMBEDDING}:
        raise ModelError("it is not a classifier of Slipway")
    return limit


def names_of(config: Mapping[str, Any]) -> set[str]:
    """The names of the model's outputs."""
    return {tensor["name"] for tensor in config.get("output", [])}


def connect(address: Address, options: Options) -> Transport:
    """A connection over the address's protocol. To be called in the event loop that is to use it.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    if address.protocol == "grpc":
        from slipway.client.grpc_transport import GrpcTransport  # one protocol's libraries do for one protocol

        return GrpcTransport(address, options)
    from slipway.client.http_transport import HttpTransport

    return HttpTransport(address, options)
