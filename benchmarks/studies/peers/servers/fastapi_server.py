"""FastAPI and uvicorn, one process: a hand-made batcher, whose threads take waiting images. Raw bytes in, JSON out."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from classifier import HOST, Settings, open_work, settings_given, settings_left
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

UVICORN: dict[str, Any] = {"host": HOST, "access_log": False, "log_level": "warning"}
Waiting = tuple[bytes, asyncio.Future[dict[str, Any]]]


class Batcher:
    """A queue of images and threads with a classifier each. A thread takes all waiting images at once, up to a
    limit."""

    def __init__(self, settings: Settings, *, threads: int) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        ready = threading.Barrier(threads + 1)
        for _ in range(threads):
            threading.Thread(target=self._work, args=(ready,), daemon=True).start()
        ready.wait()

    async def classify(self, image: bytes) -> dict[str, Any]:
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._queue.put((image, future))
        return await future

    def _work(self, ready: threading.Barrier) -> None:
        classifier = open_work(self._settings)
        ready.wait()
        while True:
            batch = [self._queue.get()]
            while len(batch) < self._settings.max_batch:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            answers = classifier.classify([image for image, _ in batch])
            self._loop.call_soon_threadsafe(self._answer, batch, answers)

    @staticmethod
    def _answer(batch: list[Waiting], answers: list[dict[str, Any]]) -> None:
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():  # otherwise the client has gone away
                future.set_result(answer)


def application(*, threads: int) -> FastAPI:
    """Make the application, with a batcher of so many threads."""
    batchers: list[Batcher] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batchers.append(Batcher(settings_left(), threads=threads))
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/classify")
    async def classify(request: Request) -> Response:
        return JSONResponse(await batchers[0].classify(await request.body()))

    return app


if __name__ == "__main__":
    settings = settings_given()
    uvicorn.run(application(threads=settings.workers), port=settings.port, **UVICORN)
