"""A small asyncio client of Triton's HTTP interface: requests at once, and an open loop at a rate."""

import asyncio
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

HOST = "127.0.0.1"
OUTPUTS = ("LABEL", "SCORE", "STATUS")
MAX_CONNECTIONS = 512
TIMEOUT_S = 20
Tensors: TypeAlias = dict[str, npt.NDArray[Any]]
Asked = TypeVar("Asked")
Result = TypeVar("Result")


@dataclass(frozen=True)
class HttpAnswer:
    """One image's answer; `error` is that of its whole request."""

    label: str = ""
    score: float = 0.0
    status: int = -1
    error: str = ""


def request(model: str, images: Sequence[bytes], outputs: Sequence[str] = OUTPUTS) -> bytes:
    """Make a whole HTTP request for `images`, in Triton's binary form; the answer comes as JSON."""
    tensor = b"".join(struct.pack("<I", len(image)) + image for image in images)
    described = {
        "inputs": [
            {
                "name": "IMAGE",
                "shape": [len(images), 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": False}} for name in outputs],
    }
    head = json.dumps(described).encode()
    lines = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(head) + len(tensor)}\r\n"
    return f"{lines}Inference-Header-Content-Length: {len(head)}\r\n\r\n".encode() + head + tensor


class Client:
    """Keeps connections to one server, and opens another where all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(self, raw: bytes) -> tuple[int, bytes]:
        """Send a request; returns HTTP status and body. A connection that broke is not used again."""
        async with self._room:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
            try:
                writer.write(raw)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
                body = await reader.readexactly(length)
            except BaseException:
                writer.close()
                raise
            self._idle.append((reader, writer))
            return int(head.split(" ", 2)[1]), body

    async def tensors(self, raw: bytes) -> Tensors | str:
        """Ask for the outputs by name; returns the reason if the answer has none."""
        try:
            status, body = await asyncio.wait_for(self.send(raw), TIMEOUT_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, StopIteration) as error:
            return type(error).__name__
        content = json.loads(body or b"{}")
        if status != 200:
            return f"{status}: {str(content.get('error'))[:200]}"
        return {output["name"]: np.reshape(output["data"], output["shape"]) for output in content["outputs"]}

    async def ask(self, raw: bytes, images: int) -> list[HttpAnswer]:
        """Return an answer for each image; every failure is an answer too."""
        found = await self.tensors(raw)
        if isinstance(found, str):
            return [HttpAnswer(error=found)] * images
        columns = (found[name][:, 0].tolist() for name in OUTPUTS)
        return [HttpAnswer(*row) for row in zip(*columns, strict=True)]

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def ask_all(port: int, model: str, requests: Sequence[Sequence[bytes]], *, concurrency: int) -> list[list[HttpAnswer]]:
    """Return the answers to every request, asked `concurrency` at a time, in their order."""

    async def one(client: Client, images: Sequence[bytes]) -> list[HttpAnswer]:
        return await client.ask(request(model, images), len(images))

    return _at_once(port, requests, one, concurrency=concurrency)


def tensors_of(
    port: int, models: Sequence[str], images: Sequence[bytes], outputs: Sequence[str], *, concurrency: int
) -> list[Tensors | str]:
    """Return each model's answer to a request with all images, or the reason for none, asked `concurrency` at a
    time."""

    async def one(client: Client, model: str) -> Tensors | str:
        return await client.tensors(request(model, images, outputs))

    return _at_once(port, models, one, concurrency=concurrency)


def _at_once(
    port: int, asked: Sequence[Asked], one: Callable[[Client, Asked], Awaitable[Result]], *, concurrency: int
) -> list[Result]:
    async def run() -> list[Result]:
        client, room = Client(port), asyncio.Semaphore(concurrency)

        async def in_turn(what: Asked) -> Result:
            async with room:
                return await one(client, what)

        try:
            return await asyncio.gather(*(in_turn(what) for what in asked))
        finally:
            client.close()

    return asyncio.run(run())


@dataclass(frozen=True)
class Load:
    """One run of an open loop."""

    took_s: list[float]
    """Seconds of each request from its scheduled send."""
    late_s: list[float]
    """Seconds that each request was sent too late."""
    failed: Counter[str]
    seconds: float
    """Seconds for which requests were sent."""
    ended_s: float
    """Seconds from the first arrival to the last answer."""


def arrive(port: int, model: str, images: Sequence[bytes], *, rate_per_s: float, seconds: float, seed: int) -> Load:
    """Send single images at Poisson arrivals, each timed from its scheduled send; a failure counts as no answer."""
    raws = [request(model, [image]) for image in images]
    rng = random.Random(seed)
    due, scheduled = 0.0, []
    while (due := due + rng.expovariate(rate_per_s)) < seconds:
        scheduled.append(due)

    async def run() -> tuple[list[float], list[float], Counter[str], float]:
        client, took_s, late_s, failed = Client(port), list[float](), list[float](), Counter[str]()
        await asyncio.gather(*(client.ask(raw, 1) for raw in raws[:32]))  # opens the connections, and is a last warm-up
        start = time.perf_counter() + 0.05

        async def one(raw: bytes, at: float) -> None:
            late_s.append(time.perf_counter() - at)
            (answer,) = await client.ask(raw, 1)
            took_s.append(time.perf_counter() - at)
            if answer.error or answer.status != 0:
                failed[answer.error or f"STATUS {answer.status}"] += 1

        tasks = []
        for index, offset in enumerate(scheduled):
            if (wait := start + offset - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(raws[index % len(raws)], start + offset)))
        await asyncio.gather(*tasks)
        ended = time.perf_counter() - start
        client.close()
        return took_s, late_s, failed, ended

    took_s, late_s, failed, ended_s = asyncio.run(run())
    return Load(took_s, late_s, failed, seconds, ended_s)


Summary = TypedDict(
    "Summary",
    {
        "offered_per_s": float,
        "achieved_per_s": float,
        "requests": int,
        "p50_ms": float,
        "p90_ms": float,
        "p99_ms": float,
        "p99.9_ms": float,
        "max_ms": float,
        "late_p99_ms": float,
        "failed": dict[str, int],
    },
)
"""Rates, percentiles over all requests, and failures by their reason: JSON of a result."""


def summary(loads: Sequence[Load]) -> Summary:
    """Summarise all runs: rates, and percentiles over their requests."""
    took_s, late_s = ([s for load in loads for s in getattr(load, name)] for name in ("took_s", "late_s"))
    failed = sum((load.failed for load in loads), Counter[str]())
    p50, p90, p99, p999, most = (round(1000 * float(np.percentile(took_s, q)), 2) for q in (50, 90, 99, 99.9, 100))
    return {
        "offered_per_s": round(len(took_s) / sum(load.seconds for load in loads), 1),
        "achieved_per_s": round(
            (len(took_s) - failed.total()) / sum(max(load.ended_s, load.seconds) for load in loads), 1
        ),
        "requests": len(took_s),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "p99.9_ms": p999,
        "max_ms": most,
        "late_p99_ms": round(1000 * float(np.percentile(late_s, 99)), 2),
        "failed": dict(failed),
    }
