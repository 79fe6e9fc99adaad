"""Plays the clients: one image after another through the gateway at a steady rate, each with its truth."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from slipway.client import AsyncClient, Options

GIVEN_UP_S = 10.0


@dataclass(frozen=True)
class SentImage:
    """An image that was sent, and the answer to it."""

    sent_s: float
    """Seconds since the stream began."""
    request_id: str
    truth: str
    label: str | None
    """Label of the answer; None if no answer came."""
    bundle: str | None
    ms: float

    @property
    def is_correct(self) -> bool:
        return self.label == self.truth


class Stream:
    """Sends images until the end of the block. Assign to `images` to change what is sent from now on."""

    def __init__(
        self, url: str, *, model: str, key: str, rate_per_s: float, images: Iterator[tuple[str, bytes]]
    ) -> None:
        self._url, self._model, self._options = url, model, Options(key=key, concurrency=64, deadline_s=GIVEN_UP_S)
        self._rate_per_s = rate_per_s
        self.images = images
        self.answers: list[SentImage] = []
        self.truth: dict[str, str] = {}
        """The true digit by the id of the request, of all that were sent."""
        self._ended = threading.Event()
        self._started_s = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._started_s

    def since(self, start_s: float) -> list[SentImage]:
        """Return the requests that were sent at `start_s` or later."""
        return [one for one in self.answers if one.sent_s >= start_s]

    def true_label(self, client_id: str) -> str:
        """Return the true digit of an image, by the id that the journal has of its request."""
        return self.truth[client_id.partition(".")[0]]

    async def _send(self) -> None:
        async with (
            AsyncClient(self._url, model=self._model, options=self._options) as client,
            asyncio.TaskGroup() as under_way,
        ):
            due = time.monotonic()
            while not self._ended.is_set():
                digit, image = next(self.images)
                under_way.create_task(self._ask(client, f"request-{len(self.truth)}", digit, image))
                due = max(due + 1 / self._rate_per_s, time.monotonic() - 1.0)  # no burst after a long pause
                await asyncio.sleep(due - time.monotonic())

    async def _ask(self, client: AsyncClient, request_id: str, digit: str, image: bytes) -> None:
        from slipway.client import ClientError

        self.truth[request_id] = digit
        sent = time.monotonic()
        label = bundle = None
        try:
            answer = await client.classify(image, request_id=request_id)
            label, bundle = answer.label, answer.bundle
        except ClientError:
            pass  # counts as an answer without a label
        ms = (time.monotonic() - sent) * 1000
        self.answers.append(SentImage(sent - self._started_s, request_id, digit, label, bundle, ms))
