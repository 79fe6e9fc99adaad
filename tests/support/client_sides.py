"""The client with and without an event loop, behind one interface: what one can, the other must. A test file takes the
fixtures that it needs."""

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
from PIL import Image

from slipway.client import AsyncClient, Client, Options, Result
from tests.support import image_files

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def encode(colour: str, size: tuple[int, int] = (60, 50), kind: str = "JPEG") -> bytes:
    return image_files.encode(Image.new("RGB", size, COLOURS[colour]), kind)


def address(server: Any, protocol: str) -> str:
    return f"{protocol}://{getattr(server, f'{protocol}_url')}"


def answered_and_refused(server: Any, model: str) -> tuple[int, int]:
    """Requests for the model since the server started, when they stand still: 2.51 counts a moment after it answers."""
    seen = None
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        while True:
            (statistics,) = client.get_inference_statistics(model).model_stats
            counts = statistics.inference_stats.success.count, statistics.inference_stats.fail.count
            if counts == seen:
                return counts
            seen = counts
            time.sleep(0.3)


class Asker:
    """Makes a client for every call: `side` is "sync" or "async"."""

    def __init__(self, side: str, url: str) -> None:
        self.side, self.url = side, url

    def classify(self, image: Any, *, model: str = "colours", full: bool = False, **options: Any) -> Result:
        if self.side == "sync":
            with Client(self.url, model=model, options=Options(**options)) as client:
                return client.classify(image, full=full)

        async def ask() -> Result:
            async with AsyncClient(self.url, model=model, options=Options(**options)) as client:
                return await client.classify(image, full=full)

        return asyncio.run(ask())

    def classify_many(
        self, images: Iterable[Any], *, model: str = "colours", full: bool = False, **options: Any
    ) -> list[Result]:
        if self.side == "sync":
            with Client(self.url, model=model, options=Options(**options)) as client:
                return list(client.classify_many(images, full=full))

        async def ask() -> list[Result]:
            async with AsyncClient(self.url, model=model, options=Options(**options)) as client:
                return [result async for result in client.classify_many(images, full=full)]

        return asyncio.run(ask())


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(protocol: str, example_server: Any) -> str:
    return address(example_server, protocol)


@pytest.fixture
def asker(side: str, url: str) -> Asker:
    return Asker(side, url)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name == "slipway-client"]
